"""One level: every weight is at a level of least error, the report by hand, grids, factorized and tied layers."""

import pytest
import torch
from rich.console import Console
from torch import nn

from spokeshave.errors import InvalidArgument, NothingChanged
from spokeshave.rewrites import one_level
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.levels import best_scale
from spokeshave.structures.magnitude_mask import Scope

EXAMPLE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


@pytest.mark.parametrize("levels", [1, 2, (1.0, 4.0)])
def test_every_weight_is_at_its_nearest_level(levels):
    net = network()
    new, report = one_level(net, EXAMPLE, levels=levels)
    for layer in report.layers:
        old, weight = (n.get_parameter(f"{layer.name}.weight").detach() for n in (net, new))
        assert layer.scale == best_scale(old, report.multiples)
        values = sorted({s * m * layer.scale for m in (0.0, *report.multiples) for s in (-1, 1)})
        table = torch.tensor(values, dtype=torch.float64).float()
        assert torch.equal(weight, table[(old.reshape(-1, 1) - table).abs().argmin(1)].reshape(old.shape))
        assert layer.relative_error == pytest.approx(float((weight - old).norm() / old.norm()), rel=1e-4)
        assert layer.zero_share + layer.plus_share + layer.minus_share == pytest.approx(1.0)
        assert torch.equal(new.get_parameter(f"{layer.name}.bias"), net.get_parameter(f"{layer.name}.bias"))
    assert 0 < report.max_relative_error < 2


def test_the_report_by_hand():
    net = nn.Sequential(nn.Linear(4, 1, bias=False))
    net[0].weight.data = torch.tensor([[0.0, -3.0, 1.0, 3.0]])
    new, report = one_level(net, torch.ones(1, 4))
    (layer,) = report.layers
    assert new[0].weight.tolist() == [[0.0, -3.0, 0.0, 3.0]]
    assert (layer.scale, layer.zero_share, layer.plus_share, layer.minus_share) == (3.0, 0.5, 0.25, 0.25)
    assert layer.relative_error == pytest.approx(1 / 19**0.5) and report.zero_share == 0.5
    console = Console(record=True, width=100)
    console.print(report.table())
    shown = console.export_text()
    assert "one level" in shown and "50.0 %" in shown and report.to_dict()["multiples"] == [1.0]


def test_one_g_for_all_layers():
    net = network()
    _, report = one_level(net, EXAMPLE, scope=Scope.GLOBAL)
    together = torch.cat([net[0].weight.detach().flatten(), net[3].weight.detach().flatten()])
    assert {layer.scale for layer in report.layers} == {best_scale(together)}


def test_a_score_chooses_the_scale_that_it_likes_best():
    net = network()
    wanted = {
        "0": 0.9 * float(net[0].weight.detach().std(correction=0)),
        "3": 1.7 * float(net[3].weight.detach().std(correction=0)),
    }

    def score(candidate: nn.Module) -> float:
        return -sum(
            abs(candidate.get_parameter(f"{n}.weight").detach().abs().max().item() - g) for n, g in wanted.items()
        )

    _, report = one_level(net, EXAMPLE, score=score)
    assert {layer.name: layer.scale for layer in report.layers} == pytest.approx(wanted, rel=1e-5)
    _, plain = one_level(net, EXAMPLE)
    _, indifferent = one_level(net, EXAMPLE, score=lambda _: 1.0)
    assert indifferent == plain, "where nothing is better, the least squared error stays"


def test_a_factorized_layer_is_quantized_in_both_parts():
    net = network()
    net[3] = FactorizedLayer.of("3", net[3], 3)
    new, report = one_level(net, EXAMPLE)
    assert [layer.name for layer in report.layers] == ["0", "3.basis", "3.combination"]
    assert all(len(new.get_parameter(f"{layer.name}.weight").unique()) <= 3 for layer in report.layers)


def test_a_tied_weight_is_quantized_once_and_stays_tied():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    new, report = one_level(nn.Sequential(first, nn.ReLU(), second), torch.ones(1, 3))
    assert len(report.layers) == 1 and new[0].weight is new[2].weight


def test_layers_of_zeros_keep_them():
    net = network()
    nn.init.zeros_(net[0].weight)
    new, report = one_level(net, EXAMPLE)
    assert report.layers[0].scale == 0.0 == report.layers[0].relative_error and not new[0].weight.any()


def test_what_is_at_levels_already_changes_nothing():
    new, _ = one_level(network(), EXAMPLE)
    with pytest.raises(NothingChanged, match="already"):
        one_level(new, EXAMPLE)


def test_what_is_wrong_is_refused():
    net = network()
    with pytest.raises(InvalidArgument, match="no layer is named"):
        one_level(net, EXAMPLE, exclude=("fc",))
    with pytest.raises(InvalidArgument, match="grid"):
        one_level(net, EXAMPLE, score=lambda _: 0.0, grid=())
    with pytest.raises(InvalidArgument, match=r"Scope\.LAYER"):
        one_level(net, EXAMPLE, score=lambda _: 0.0, scope=Scope.GLOBAL)
    net[3].weight.data[0, 0] = float("nan")
    with pytest.raises(InvalidArgument, match="3: weights must be finite"):
        one_level(net, EXAMPLE)


def test_scoring_leaves_statistics_and_modes_as_they_were():
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).train()
    x = torch.randn(20, 4)
    modes = []

    def score(network: nn.Module) -> float:
        modes.append(network[1].training)
        return -float(network(x).detach().square().mean())

    new, _ = one_level(net, x, score=score, grid=(0.8, 1.2))
    assert torch.equal(new[1].running_mean, net[1].running_mean) and new[1].num_batches_tracked == 0
    assert modes == [False] * 6 and new[1].training
