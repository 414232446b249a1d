import pytest
import torch
from torch import fx, nn

from spokeshave.errors import InexactRewrite
from spokeshave.rewrites import shrink
from spokeshave.rewrites.verification import probes_like, relative_error, verify


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
