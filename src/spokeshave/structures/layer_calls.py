"""Layer calls: the shapes that enter and leave each layer of a model, from one run on an example."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.timing import evaluating


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer with one tensor.

    Attributes:
        entering, leaving: shapes, batch included.
    """

    entering: tuple[int, ...]
    leaving: tuple[int, ...]


@dataclass
class LayerCalls:
    """What was seen of one layer.

    Attributes:
        calls: one after the other; none where the model never calls the layer.
        plainly: whether each was with one tensor and nothing else.
    """

    calls: list[LayerCall]
    plainly: bool = True


@contextmanager
def plain_transformers() -> Iterator[None]:
    """Switch torch's fused transformer layers off, which call none of their parts, and afterwards as they were."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def layer_calls(model: nn.Module, inputs: tuple[object, ...], layers: Mapping[str, nn.Module]) -> dict[str, LayerCalls]:
    """Run the model once in eval mode and note the calls of some layers.

    Args:
        model: left in its modes, without hooks.
        inputs: arguments of forward.
        layers: of the model, by name.

    Returns:
        What was seen of each layer, in the given order.

    Raises:
        InvalidArgument: where the model fails on the inputs.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3))
        >>> layer_calls(net, (torch.zeros(4, 1, 5, 5),), {"0": net[0]})["0"].calls
        [LayerCall(entering=(4, 1, 5, 5), leaving=(4, 2, 3, 3))]
    """
    found = {name: LayerCalls([]) for name in layers}

    def hook(mine: LayerCalls) -> Callable[..., None]:
        def note(_module: nn.Module, given: tuple[object, ...], named: dict[str, object], output: object) -> None:
            if len(given) == 1 and not named and isinstance(given[0], Tensor) and isinstance(output, Tensor):
                mine.calls.append(LayerCall(tuple(given[0].shape), tuple(output.shape)))
            else:
                mine.plainly = False

        return note

    handles = [m.register_forward_hook(hook(found[name]), with_kwargs=True) for name, m in layers.items()]
    try:
        with evaluating(model), plain_transformers(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            model(*inputs)
    except Exception as error:
        raise InvalidArgument(
            f"{type(model).__name__} fails on the example: {type(error).__name__}: {error}; give the arguments of its "
            "forward, on its device"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return found
