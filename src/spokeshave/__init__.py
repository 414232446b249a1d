"""Spokeshave shapes neural networks for the machine that will run them."""
