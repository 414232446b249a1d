import pytest
import torch
from torch import Tensor, fx, nn

from spokeshave.errors import InexactRewrite
from spokeshave.rewrites import shrink
from spokeshave.rewrites.verification import probes_like, relative_error, verify, worst_error


def test_probes_keep_shape_and_kind_and_leave_the_generator_alone():
    state = torch.get_rng_state()
    probes = probes_like((torch.full((2, 3), 7.0), torch.tensor([[4], [5]])))
    assert torch.equal(torch.get_rng_state(), state)
    assert [probe[0].shape[0] for probe in probes] == [2, 2, 3, 1]  # type: ignore[union-attr]
    assert all(set(probe[1].flatten().tolist()) <= {4, 5} for probe in probes)  # type: ignore[union-attr]


def test_relative_error_of_structures():
    assert relative_error({"a": torch.tensor([2.0, 1.0])}, {"a": torch.tensor([2.0, 2.0])}) == 0.5
    assert relative_error(torch.zeros(2), torch.zeros(3)) == float("inf")
    assert relative_error(torch.tensor([float("nan")]), torch.tensor([1.0])) == float("inf")
    assert relative_error(torch.tensor([float("inf"), 1.0]), torch.tensor([float("inf"), 1.0])) == 0.0


def test_a_wrong_rewrite_is_caught():
    network = nn.Sequential(nn.Linear(3, 2))
    wrong = fx.symbolic_trace(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(InexactRewrite, match="first difference: here"):
        verify(wrong, network, (torch.randn(1, 3),), 1e-5, lambda _: "here")


def test_shrink_names_the_first_layer_that_differs(monkeypatch):
    from spokeshave.rewrites import channel_removal

    monkeypatch.setattr(channel_removal, "_constant_kernel", lambda *a, **k: torch.full((4, 3, 3), 0.1).double())
    network = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        network[0].weight[1] = 0
        network[0].bias[1] = 1.0
    with pytest.raises(InexactRewrite, match="first difference: _2"):
        shrink(network, torch.randn(1, 2, 8, 8))


def test_an_output_of_rounding_noise_is_measured_against_the_others():
    noise = (torch.tensor([100.0]), torch.tensor([2e-16]))
    assert relative_error((torch.tensor([100.0]), torch.tensor([4e-16])), noise) < 1e-11
    assert relative_error((torch.tensor([100.0]), torch.tensor([1.0])), noise) > 1e3
    alone = torch.tensor([2e-16], dtype=torch.float64)
    assert relative_error(2 * alone, alone) == 1.0
    assert relative_error(2 * alone, alone, floor=1e-12) == 0.0
    assert relative_error(1e6 * alone, alone, floor=1e-12) > 1.0


def test_spectral_norm_in_train_mode_is_shrunk_to_what_eval_mode_computes():
    torch.manual_seed(0)
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4), n_power_iterations=1)
    network = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), normed).train()
    with torch.no_grad():
        network[0].weight[2] = 0
        normed.parametrizations.weight.original.normal_()  # type: ignore[union-attr, operator]
    smaller, _ = shrink(network, torch.randn(2, 5))
    assert smaller.training and network.training
    x = torch.randn(7, 5)
    torch.testing.assert_close(smaller.eval()(x), network.eval()(x), rtol=1e-5, atol=1e-6)


def test_a_wrong_private_copy_is_caught(monkeypatch):
    from spokeshave.structures import graph_tracing

    def halved(module: nn.Module) -> None:
        burn(module)
        module.weight.data.mul_(0.5)  # type: ignore[operator, union-attr]

    burn = graph_tracing._burn_parametrizations
    monkeypatch.setattr(graph_tracing, "_burn_parametrizations", halved)
    network = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)))
    with torch.no_grad():
        network[0].weight[2] = 0
    with pytest.raises(InexactRewrite):
        shrink(network, torch.randn(2, 5))


def test_a_batch_size_that_the_model_refuses_prints_nothing(capfd):
    network = fx.symbolic_trace(TwoRows())
    assert len(verify(network, network, (torch.randn(2, 3),), 1e-5, lambda _: "")[1]) == 1
    assert capfd.readouterr().err == ""


class TwoRows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.rows


class Cancelling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + 1e4) - 1e4


def test_rounding_of_the_original_is_not_held_against_the_rewrite():
    notes: list[str] = []
    inputs = (torch.linspace(0.1, 1, 20).reshape(2, 10),)
    assert worst_error([lambda x: x] * 4, Cancelling(), inputs, 1e-5, notes) > 1e-5
    assert "rounding" in notes[0]
    for wrong in (lambda x: 1.002 * x, lambda x: x + float("nan"), lambda x: x[:1]):
        with pytest.raises(InexactRewrite):
            worst_error([wrong] * 4, Cancelling(), inputs, 1e-5, [])


def test_a_batch_size_that_the_original_cannot_run_is_noted_and_one_that_it_must_run_is_raised():
    notes, x, fixed = [], torch.ones(2, 3), TwoRows()
    assert worst_error([fixed] * 4, fixed, (x,), 1e-5, notes) == 0.0
    _, others = verify(fx.symbolic_trace(fixed), fixed, (x,), 1e-5, lambda _: "here")
    assert len(notes) == len(others) == 1 and all("another batch size was not checked" in n for n in notes + others)
    with pytest.raises(RuntimeError):
        worst_error([fixed] * 4, fixed, (torch.ones(3, 3),), 1e-5, [])
