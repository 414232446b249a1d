"""Example inputs: the arguments of a model's forward, nested as they come, with their batch on axis 0."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from spokeshave.errors import InvalidArgument


def as_inputs(example: object) -> tuple[object, ...]:
    """Example input as the tuple of positional arguments of `forward`.

    Args:
        example: a tensor, or a tuple or list of arguments.

    Returns:
        the arguments.

    Raises:
        InvalidArgument: there is no tensor in it.
    """
    inputs = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(inputs)):
        raise InvalidArgument(
            f"example: expected a tensor or a tuple with the arguments of forward, got {type(example).__name__}; "
            "pass an input with a batch axis, for instance torch.randn(1, 3, 32, 32)"
        )
    return inputs


def map_tensors(function: Callable[[Tensor], object], values: object) -> object:
    """The same nested arguments with a function applied to every tensor.

    Args:
        function: from a tensor to its replacement.
        values: tensors, tuples, lists, dicts and plain values.

    Returns:
        the structure with the results.
    """
    return pytree.tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, values)


def with_batch(values: tuple[object, ...], batch: int) -> tuple[object, ...]:
    """Inputs at another batch size: rows are repeated along axis 0.

    Args:
        values: arguments of forward; tensors have the batch on axis 0.
        batch: wanted size of axis 0, at least 1.

    Returns:
        new arguments.
    """

    def resize(tensor: Tensor) -> Tensor:
        if tensor.ndim == 0 or tensor.shape[0] == 0:
            return tensor
        repeats = -(-batch // tensor.shape[0])
        return torch.cat([tensor] * repeats)[:batch]

    resized = map_tensors(resize, values)
    assert isinstance(resized, tuple)
    return resized


def batch_of(inputs: tuple[object, ...]) -> int:
    """Size of axis 0 of the first tensor; 1 for a number.

    Args:
        inputs: arguments of forward.
    """
    first = next(leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor))
    return max(1, int(first.shape[0])) if first.ndim else 1


def share_batch(inputs: tuple[object, ...]) -> bool:
    """Whether all tensors have the same size of axis 0.

    Args:
        inputs: arguments of forward.
    """
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return all(tensor.ndim > 0 and tensor.shape[0] == tensors[0].shape[0] for tensor in tensors)
