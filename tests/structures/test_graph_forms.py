import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spokeshave.rewrites import shrink
from spokeshave.structures.graph_forms import align
from spokeshave.structures.graph_tracing import trace


@pytest.mark.parametrize(
    ("before", "after", "blocks"),
    [
        ((2, 3, 4, 5), (2, 60), [([0], [0]), ([1, 2, 3], [1])]),
        ((2, 8, 1, 1), (2, 8), [([0], [0]), ([1, 2, 3], [1])]),
        ((2, 8), (2, 8, 1, 1), [([0], [0]), ([1], [1, 2, 3])]),
        ((2, 12), (2, 3, 4), [([0], [0]), ([1], [1, 2])]),
        ((2, 3, 4), (6, 4), [([0, 1], [0]), ([2], [1])]),
        ((2, 6, 4), (2, 4, 6), [([0], [0]), ([1, 2], [1, 2])]),
    ],
)
def test_reshapes_are_matched_from_the_left(before, after, blocks):
    assert align(before, after) == blocks
    assert align((0, 3), (3, 0)) is None


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.relu, self.identity = nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        count = x.size(0)
        count += 1
        x = x * count / x.size(0)
        y = self.fc(x)
        z = self.identity(y)
        early = y * 2
        self.relu(z)
        y += 1
        F.dropout(y, 0.5, self.training)
        y.mul_(3)
        return torch.sigmoid_(y) + z + early


def test_in_place_calls_become_plain_and_mean_the_same():
    network, x = InPlace(), torch.randn(4, 3)
    traced = trace(network, x)
    torch.testing.assert_close(traced.graph(x), network.eval()(x))
    assert "inplace = True" not in traced.graph.code and "+=" not in traced.graph.code
    assert not any(getattr(module, "inplace", False) for module in traced.graph.modules())


class Forms(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.dropout2d(x, 0.25, training=self.training)
        b, c, h, w = x.shape
        shuffled = x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
        return shuffled, x.view(-1, 4 * 6)


def test_shuffles_views_and_dropout_take_one_form():
    x = torch.randn(2, 4, 2, 3)
    traced = trace(Forms(), x)
    calls = [str(node.target) for node in traced.graph.graph.nodes if node.op.startswith("call")]
    assert sum("index_select" in call for call in calls) == 1 and not any("view" in call for call in calls)
    assert [type(module) for module in traced.graph.children()] == [nn.Dropout2d]
    for a, b in zip(traced.graph(x), Forms().eval()(x), strict=True):
        assert torch.equal(a, b)
    assert traced.graph.channel_order_0.tolist() == [0, 2, 1, 3]  # type: ignore[union-attr]


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(input=F.relu(self.a(x)))))


def test_layers_called_by_keyword_are_called_by_position():
    network = Keywords()
    with torch.no_grad():
        network.a.weight[[1, 2]] = 0
        network.a.bias.fill_(0.5)  # type: ignore[union-attr]
    x = torch.randn(2, 3, 9, 9)
    graph = trace(network, x).graph
    assert all(len(node.args) == 1 and not node.kwargs for node in graph.graph.nodes if node.op == "call_module")
    torch.testing.assert_close(shrink(network, x)[0](x), network(x), rtol=1e-4, atol=1e-5)


class NamesTaken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("channel_order_0", torch.tensor([2.0, 3.0, 5.0, 7.0]).reshape(4, 1, 1))
        for place in range(4):
            self.add_module(f"dropout_{place}", nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.dropout_1(self.dropout_0(x)), 0.5, self.training)
        return F.channel_shuffle(x, 2) * self.channel_order_0


def test_names_of_the_model_are_not_taken_for_new_parts():
    network, x = NamesTaken().eval(), torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(trace(network, x).graph(x), network(x))
