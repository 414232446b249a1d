"""Nouns that regularizers, rewrites and targets share; functions on tensors and graphs."""
