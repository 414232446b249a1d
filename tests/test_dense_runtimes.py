"""Networks timed beside a dense one in every form that torch has for it."""

import pytest
import torch
from torch import nn

from spokeshave.dense_runtimes import times_as_fast, torch_forms
from spokeshave.errors import InvalidArgument


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()


def test_every_form_gives_what_the_network_gives_and_leaves_it_alone() -> None:
    net, images = network(), torch.randn(4, 3, 9, 9)
    with torch.no_grad():
        expected = net(images)
        forms = torch_forms(net, images)
        assert list(forms) == ["eager", "channels last", "frozen"]
        for form in forms.values():
            torch.testing.assert_close(form(images), expected)
    assert net[0].weight.is_contiguous() and not net.training


def test_a_form_that_gives_other_numbers_is_left_out(monkeypatch) -> None:
    monkeypatch.setattr(torch.jit, "optimize_for_inference", lambda frozen: nn.Sequential(network(), nn.Hardtanh()))
    assert list(torch_forms(network(), torch.randn(4, 3, 9, 9) * 9)) == ["eager", "channels last"]


def test_ratios_are_times_of_the_best_form_over_the_other(monkeypatch) -> None:
    asked = []

    def taken(models, inputs, threads, repeats, budget_s):
        asked.append((len(models), threads, repeats))
        return [[9.0, 9.0, 9.0], [4.0, 6.0, 40.0], [8.0, 8.0, 8.0], [2.0, 2.0, 4.0], [8.0, 6.0, 10.0]]

    monkeypatch.setattr("spokeshave.dense_runtimes.time_in_turns", taken)
    others = {"one": network(), "other": network()}
    found = times_as_fast(network(), others, torch.zeros(2, 3, 9, 9), threads=2, repeats=3)
    assert asked == [(5, 2, 3)]
    assert found["one"][0] == 3.0 and found["other"][0] == 1.0  # medians of 2, 3, 10 and of 0.5, 1, 4


@pytest.mark.parametrize(("others", "repeats"), [({}, 3), ({"one": network()}, 0)])
def test_nothing_to_compare_is_refused(others, repeats) -> None:
    with pytest.raises(InvalidArgument, match="at least 1 turn"):
        times_as_fast(network(), others, torch.zeros(1, 3, 9, 9), repeats=repeats)
