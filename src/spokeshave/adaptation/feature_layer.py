"""What the last layer of any classifier is fed: its features, without taking the network apart.

The layer is found by running the network once: the last linear or convolutional layer that gives one number a class.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.timing import evaluating

_KINDS = (nn.Linear, nn.Conv2d)


def last_layer(network: nn.Module, example: Float[Tensor, "b *image"]) -> str:
    """Name the layer that makes scores of features.

    Args:
        network: gives logits; left as it was.
        example: a batch that it takes.

    Raises:
        UnsupportedLayer: where no linear or convolutional layer gives as many channels as there are classes.
        InvalidArgument: where the network fails, or does not give logits of shape (b, classes).

    Example:
        >>> last_layer(nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3)), torch.zeros(1, 2))
        '2'
    """
    ran, scores = _as_they_run(network, example)
    found = [name for name, channels in ran if channels == scores.shape[1]]
    if not found:
        raise UnsupportedLayer(
            f"{type(network).__name__}: no linear or convolutional layer gives {scores.shape[1]} numbers, as many as "
            "there are classes; name the layer whose input are the features"
        )
    return found[-1]


def first_layer(network: nn.Module, example: Float[Tensor, "b *image"]) -> str:
    """Name the linear or convolutional layer that runs first: the one that reads the image.

    Args:
        network: gives logits; left as it was.
        example: a batch that it takes.

    Raises:
        UnsupportedLayer: where there is no such layer.
        InvalidArgument: where the network fails, or does not give logits of shape (b, classes).

    Example:
        >>> first_layer(nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3)), torch.zeros(1, 2))
        '0'
    """
    ran, _ = _as_they_run(network, example)
    if not ran:
        raise UnsupportedLayer(f"{type(network).__name__}: no linear or convolutional layer runs")
    return ran[0][0]


def _as_they_run(network: nn.Module, example: Tensor) -> tuple[list[tuple[str, int]], Tensor]:
    """Names of layers and how many numbers each gives a position, one call after another; and the network's scores."""
    ran: list[tuple[str, int]] = []

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _inputs, output: ran.append((name, output.shape[min(1, output.dim() - 1)]))

    handles = [
        layer.register_forward_hook(note(name)) for name, layer in network.named_modules() if isinstance(layer, _KINDS)
    ]
    try:
        return ran, scores_of(network, example)
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def scores_of(network: nn.Module, example: Float[Tensor, "b *image"]) -> Float[Tensor, "b classes"]:
    """Run a classifier once, in evaluation mode.

    Args:
        network: gives logits; left as it was.
        example: a batch that it should take.

    Raises:
        InvalidArgument: where the network fails, or does not give logits of shape (b, classes).
    """
    name = type(network).__name__
    try:
        with evaluating(network):
            scores = network(example)
    except Exception as error:  # a network of anybody
        raise InvalidArgument(
            f"{name} fails on images of shape {tuple(example.shape[1:])} (channels, height, width): {error}; "
            "give images of the size and the channels that it takes"
        ) from error
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InvalidArgument(f"{name}: expected logits of shape (images, classes), got {got}")
    return scores


@contextmanager
def features_of(network: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Collect what a layer is fed, batch by batch, while the network runs.

    Args:
        network: any.
        layer: name of the layer; its input is averaged over pixels, or tokens, where it has such.

    Yields:
        A list, to which each forward pass adds features of shape (b, features).

    Raises:
        InvalidArgument: where the network has no such layer.
    """
    named = dict(network.named_modules())
    if layer not in named:
        raise InvalidArgument(
            f"{type(network).__name__} has no layer {layer!r}; its layers are {', '.join(filter(None, named))}"
        )
    found: list[Tensor] = []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given = inputs[0]
        if given.dim() > 2:  # of a linear layer the last axis are features, of a convolution the second, then pixels
            linear = isinstance(module, nn.Linear)
            given = given.flatten(1, -2).mean(1) if linear else given.flatten(2).mean(2)
        found.append(given)

    handle = named[layer].register_forward_pre_hook(hook)
    try:
        yield found
    finally:
        handle.remove()
