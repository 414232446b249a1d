"""Own costs: what layers cost that modules run by other means than torch's operations and parameters."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

from torch import Tensor, nn


@dataclass(frozen=True)
class OwnCost:
    """One layer.

    Attributes:
        name: within the module that runs it; '' for the module itself.
        kind: of work.
        parameters: numbers that are kept, those that are no parameters of torch: weights, biases, factors.
        nonzero_parameters: those of them that are not zero.
        bytes: of what is kept, buffers of torch left out.
        flops: of one call with one image; a multiply-add counts as 2.
        seen_by_torch: whether torch's counter finds these FLOPs as well.
    """

    name: str
    kind: str
    parameters: int
    nonzero_parameters: int
    bytes: int
    flops: int
    seen_by_torch: bool = False


class HasOwnCosts(Protocol):
    """A module that runs such layers; `measure` asks the class, so that one which passes on attributes is none."""

    def own_costs(self) -> Sequence[OwnCost]:
        """Give its layers, in order of execution, each once."""
        ...


def own_costs_of(model: nn.Module) -> dict[str, list[OwnCost]]:
    """Ask all modules that have some.

    Args:
        model: any.

    Returns:
        name of the module -> its layers.
    """
    asked = ((name, module) for name, module in model.named_modules() if callable(_method(module)))
    return {name: list(cast(HasOwnCosts, module).own_costs()) for name, module in asked}


def _method(module: nn.Module) -> object:
    return getattr(type(module), "own_costs", None)


@contextmanager
def images_through(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, int]]:
    """Count images that go through modules meanwhile, those of all calls together.

    Args:
        model: has the modules.
        names: of them.

    Returns:
        name -> images, which grow.
    """
    seen = dict.fromkeys(names, 0)

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def count(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            tensors = [one for one in inputs if isinstance(one, Tensor)]
            seen[name] += len(tensors[0]) if tensors and tensors[0].dim() else 1

        return count

    handles = [model.get_submodule(name).register_forward_pre_hook(note(name)) for name in seen]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
