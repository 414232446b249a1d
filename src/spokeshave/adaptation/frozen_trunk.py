"""Adapting the last stage of a network alone: what lies before it is frozen, and run before the training, not in it.

Long, Cao, Wang, Jordan: Learning Transferable Features with Deep Adaptation Networks, ICML 2015, freeze the first
layers of a pretrained network: they are general. A step then costs what the last stage does.
Departs from the paper: the cut is at the last pooling; statistics of batch normalization before it are those of each
domain; images are not cropped or mirrored at random, as they are not seen again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from spokeshave.adaptation.domain_pair import DomainPair
from spokeshave.adaptation.target_statistics import refresh_statistics
from spokeshave.data import Batches, Split, Splits
from spokeshave.errors import UnsupportedLayer
from spokeshave.structures.graph_tracing import LeafTracer, without_shape_checks

_POOLING = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True, eq=False)
class FeatureMaps(Split):
    """What a trunk made of images, in their place.

    Args:
        images: feature maps.
        labels: the class of each image, 0 or more.
    """

    images: Float[Tensor, "n c h w"]  # pyright: ignore[reportIncompatibleVariableOverride]
    dtype: ClassVar[torch.dtype] = torch.float32


def cut_at_last_pooling(network: nn.Module) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Take a network apart after its last pooling layer: trunk, and the rest, which has the names of the whole network.

    Args:
        network: that `torch.fx` can trace. Both parts hold its own layers: what is trained in them, is trained there.

    Raises:
        UnsupportedLayer: where it cannot be traced, does other things in training than `nn.Dropout` and the like do by
            themselves, has a layer on both sides, or no `nn.MaxPool2d` or `nn.AvgPool2d` of a stride above 1 has
            everything behind it.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2))
        >>> trunk, rest = cut_at_last_pooling(net)
        >>> trunk(torch.zeros(1, 3, 4, 4)).shape, [name for name, _ in rest.named_parameters()]
        (torch.Size([1, 4, 1, 1]), ['3.weight', '3.bias'])
    """
    name = type(network).__name__
    graph = _one_graph(network)
    modules = dict(network.named_modules())
    nodes = list(graph.nodes)
    for place in range(len(nodes) - 1, -1, -1):
        node = nodes[place]
        if node.op != "call_module" or not isinstance(pool := modules[str(node.target)], _POOLING):
            continue
        before = set(nodes[:place])
        if pool.stride in (1, (1, 1)) or any(before & set(late.all_input_nodes) for late in nodes[place + 1 :]):
            continue
        parts = fx.GraphModule(network, _part(nodes[: place + 1])), fx.GraphModule(network, _part(nodes[place:], True))
        held = [{id(one) for one in (*part.parameters(), *part.buffers())} for part in parts]
        if held[0] & held[1]:
            raise UnsupportedLayer(f"{name}: a layer is used before and after {node.target}; adapt the whole network")
        return parts
    raise UnsupportedLayer(
        f"{name}: no pooling layer of a stride above 1 has all later layers behind it alone; adapt the whole network"
    )


def _one_graph(network: nn.Module) -> fx.Graph:
    """The graph of a network that is the same in training and in evaluation."""
    modes = {module: module.training for module in network.modules()}
    graphs = []
    try:
        with without_shape_checks():
            for training in (True, False):
                graphs.append(LeafTracer().trace(network.train(training)))
    except Exception as error:  # tracing runs code of anybody
        what = f"{type(network).__name__}: torch.fx could not trace it ({error})"
        raise UnsupportedLayer(f"{what}; adapt the whole network") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if str(graphs[0]) != str(graphs[1]):
        raise UnsupportedLayer(
            f"{type(network).__name__}: its forward does other things in training than in evaluation; use nn.Dropout "
            "in place of functional dropout, or adapt the whole network"
        )
    return graphs[1]


def _part(nodes: list[fx.Node], fed: bool = False) -> fx.Graph:
    """A graph of its own; the first node is fed from outside, or the last one is the answer."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for place, node in enumerate(nodes):
        copies[node] = part.placeholder("features") if fed and not place else part.node_copy(node, copies.__getitem__)
    if not fed:
        part.output(copies[nodes[-1]])
    return part


@torch.no_grad()
def through_trunk(trunk: nn.Module, images: Batches) -> FeatureMaps:
    """The feature maps of images.

    Args:
        trunk: put in evaluation mode.
        images: each is seen once, in the order of the split.
    """
    trunk.eval()
    seen = [(trunk(shown).cpu(), labels.cpu()) for shown, labels in images]
    return FeatureMaps(torch.cat([maps for maps, _ in seen]).contiguous(), torch.cat([labels for _, labels in seen]))


def pair_through_trunk(
    trunk: nn.Module, domains: DomainPair, batches: Callable[[Split], Batches], own_statistics: bool = True
) -> DomainPair:
    """Two domains as a trunk's feature maps.

    Args:
        trunk: its statistics of batch normalization are changed: those of the target stay, or of the source.
        domains: images.
        batches: feeds the images of a split, each once.
        own_statistics: batch normalization takes those of each domain; else those of the source for both: nothing
            is seen of the target then.
    """
    refresh_statistics(trunk, batches(domains.source.train))
    source = _through(trunk, domains.source, batches)
    if own_statistics:
        refresh_statistics(trunk, batches(domains.target.train))
    return DomainPair(source, _through(trunk, domains.target, batches), domains.classes)


def _through(trunk: nn.Module, splits: Splits, batches: Callable[[Split], Batches]) -> Splits:
    train = through_trunk(trunk, batches(splits.train))
    # Small sets have no test split of their own; nothing is looked at twice.
    test = train if splits.test.images is splits.train.images else through_trunk(trunk, batches(splits.test))
    return Splits(splits.name, train, test, splits.classes)
