"""Oracle: disturb one channel of a tensor and see which entries of the result move."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spokeshave.errors import NothingChanged
from spokeshave.rewrites import shrink
from spokeshave.structures.coupling import couple
from spokeshave.structures.graph_tracing import trace

EXPRESSIONS = {
    "relu method": lambda x: x.relu(),
    "scalar on the left": lambda x: 1 + 2 * x,
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "adaptive": lambda x: torch.nn.functional.adaptive_avg_pool2d(x, (1, 2)),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "flatten": lambda x: torch.flatten(x, 1),
    "view": lambda x: x.view(x.size(0), -1),
    "hard view": lambda x: x.view(-1, 6, 20),
    "reshape spatial": lambda x: x.reshape(x.shape[0], x.shape[1], -1),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "token 0": lambda x: x.flatten(2).transpose(1, 2)[:, 0],
    "mean": lambda x: x.mean((2, 3)),
    "mean keepdim": lambda x: torch.mean(x, dim=[-1, -2], keepdim=True),
    "sum one": lambda x: x.sum(2),
    "cat": lambda x: torch.cat([x, x * 2], dim=1),
    "cat height": lambda x: torch.cat([x, x * 2], -2),
    "slice": lambda x: x[:, 2:5],
    "negative slice": lambda x: x[:, -3:, 1:, ::2],
    "new axis": lambda x: x[:, None],
    "ellipsis": lambda x: x[..., 1:],
    "chunk": lambda x: x.chunk(2, dim=1)[1],
    "split": lambda x: torch.split(x, [1, 3, 2], 1)[1],
    "pad": lambda x: F.pad(x, (1, 1, 0, 2)),
    "pad channels": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)),
    "softmax positions": lambda x: torch.softmax(x.flatten(2), -1),
    "unsqueeze": lambda x: x.mean((2, 3)).unsqueeze(1),
    "squeeze": lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
    "unflatten": lambda x: x.flatten(1).unflatten(1, (6, 4, 5)),
    "expand": lambda x: x.mean((2, 3), keepdim=True).expand(-1, 6, 3, 3),
    "shuffle": lambda x: F.channel_shuffle(x, 3),
    "hand shuffle": lambda x: x.view(x.shape[0], 2, 3, 4, 5).transpose(1, 2).contiguous().view(x.shape[0], 6, 4, 5),
    "swish": lambda x: x * torch.sigmoid(x),
    "within norm": lambda x: x / (1 + F.avg_pool2d(x**2, 3, 1, 1)) ** 0.75,
    "where": lambda x: torch.where(x > 0, x, x.abs()),
    "clamp": lambda x: x.clamp(min=0).add_(1),
}
BARRIERS = {
    "softmax channels": lambda x: torch.softmax(x, 1),
    "mean channels": lambda x: x.mean(1),
    "one channel": lambda x: x[:, 2],
    "strided channels": lambda x: x[:, ::2],
    "flip": lambda x: x.flip(1),
    "group norm": lambda x: F.group_norm(x, 2),
    "matmul": lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    "batch axis": lambda x: x.reshape(-1, 4, 5),
    "cumsum": lambda x: x.cumsum(1),
    "pixel shuffle": lambda x: F.pixel_shuffle(x[:, :4], 2),
    "glu": lambda x: F.glu(x, 1),
    "size read": lambda x: x * x.shape[1],
    "all": lambda x: x / x.norm(),
}


class Apply(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def analyse(function):
    torch.manual_seed(0)
    traced = trace(Apply(function), torch.randn(2, 2, 4, 5))
    coupling = couple(traced.graph)
    nodes = {node.op: node for node in traced.graph.graph.nodes}
    result = nodes["output"].all_input_nodes[0]
    return coupling, coupling.mixing[0].outputs.ids, coupling.channels.get(result)


@pytest.mark.parametrize("label", EXPRESSIONS)
def test_entries_follow_the_channel_that_they_depend_on(label):
    function = EXPRESSIONS[label]
    coupling, first, channels = analyse(function)
    assert channels is not None
    x = torch.rand(2, 6, 4, 5) + 0.5
    before = function(x.clone())
    classes = coupling.classes()
    for place, variable in enumerate(classes[first].tolist()):
        disturbed = x.clone()
        disturbed[:, place] *= 1 + torch.rand(2, 4, 5)
        moved = (function(disturbed) - before).movedim(channels.axis, 0).flatten(1).abs().amax(1) > 0
        same = torch.tensor([other == variable for other in classes[channels.ids].tolist()])
        assert (same | ~moved).all(), f"{label}: an entry moves with a channel that it is not tied to"
        assert moved.any() or not same.any() or "token" in label


@pytest.mark.parametrize("label", BARRIERS)
def test_what_mixes_or_counts_channels_pins_them(label):
    coupling, first, _ = analyse(BARRIERS[label])
    classes = coupling.classes()
    pinned = coupling.pinned(classes)[classes[first]]
    assert pinned[:4].all()


def test_a_channel_order_inside_a_submodule_or_read_twice_is_followed():
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 8, 1)
            self.shuffle = nn.ChannelShuffle(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.shuffle(self.first(x)).relu())

    network = Shuffled()
    with torch.no_grad():
        network.first.weight[[1, 6]] = 0
    x = torch.randn(2, 3, 5, 5)
    once, _ = shrink(network, x)
    again = nn.Sequential(once, nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        once.get_submodule("first").weight[[0, 3]] = 0  # type: ignore[index, operator]
    twice, _ = shrink(again, x)
    assert tuple(twice.get_submodule("0.first").weight.shape) == (4, 3, 1, 1)  # type: ignore[union-attr, arg-type]
    torch.testing.assert_close(twice(x), again(x))
    doubled = nn.Sequential(nn.Conv2d(3, 3, 1), once, nn.Conv2d(8, 3, 1), once)
    with torch.no_grad():
        doubled[0].weight[1] = 0
    try:
        smaller, _ = shrink(doubled, x)
    except NothingChanged:
        smaller = doubled
    torch.testing.assert_close(smaller(x), doubled(x))
