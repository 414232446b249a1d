"""The stopwatch: samples in turns, shares of nested calls, quartiles."""

import pytest
import torch
from torch import Tensor, nn

from spokeshave.timing import count_flops, evaluating, median_and_spread, time_in_turns, time_layers, using_threads


def test_median_and_spread_of_known_numbers() -> None:
    assert median_and_spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 2.0)
    assert median_and_spread([7.0]) == (7.0, 0.0)


def test_models_take_turns_in_both_orders() -> None:
    calls: list[str] = []

    class Spy(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name
            self.work = nn.Conv2d(8, 64, 3)

        def forward(self, x: Tensor) -> Tensor:
            if not calls or calls[-1] != self.name:
                calls.append(self.name)
            return self.work(x)

    first, second = time_in_turns([Spy("a"), Spy("b")], (torch.zeros(1, 8, 40, 40),), 1, 4, 60.0)
    assert len(first) == len(second) == 4 and min(first + second) > 0
    # warm-up a b, calibration a b, then pairs a b | b a | a b | b a; neighbours of one name are one entry
    assert calls == ["a", "b", "a", "b", "a", "b", "a", "b", "a"]


def test_a_spent_budget_stops_after_five_samples() -> None:
    (samples,) = time_in_turns([nn.Identity()], (torch.zeros(1),), 1, 1000, 0.0)
    assert len(samples) == 5


def test_nested_modules_are_charged_for_their_own_work_only() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) @ torch.ones(4, 2)

    flops, total = count_flops(nn.Sequential(Outer()), (torch.zeros(1, 4),))
    assert flops == {"(model)": 0, "0": 2 * 4 * 2, "0.inner": 2 * 4 * 4}
    assert total == sum(flops.values())


def test_layer_times_have_every_called_module() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU()))
    (times,) = time_layers([net], (torch.zeros(2, 3),), 3, 10.0)
    assert set(times) == {"(model)", "0", "1", "1.0"}
    assert min(times.values()) > 0


def test_using_threads_and_evaluating_restore_on_errors() -> None:
    threads = torch.get_num_threads()
    net = nn.Dropout().train()
    with pytest.raises(KeyError), using_threads(threads + 2), evaluating(net):
        assert torch.get_num_threads() == threads + 2
        assert not net.training
        raise KeyError
    assert torch.get_num_threads() == threads
    assert net.training
