"""A whole benchmark of a small network: what is in it, that it is JSON, and that the model is left alone."""

import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn

from cpu_benchmark_cases import QUICK, SHAPE, Shortcut, needs_generated_code, small_benchmark
from spokeshave.cpu_benchmark import benchmark as module
from spokeshave.cpu_benchmark.benchmark import BenchmarkSettings, benchmark
from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.jit.host_cpu import HostCpu


@needs_generated_code
def test_everything_is_in_the_record():
    done = small_benchmark()
    record = json.loads(json.dumps(done.to_dict()))
    assert [layer["layer"] for layer in record["layers"]] == ["first", "second", "last"]
    shares = [layer["density"] for layer in record["layers"]]
    assert shares == pytest.approx([0.3, 0.3, 0.3], abs=0.01)
    assert [set(layer["measured"]) >= {"dense", "direct sparse"} for layer in record["layers"]] == [True] * 3
    assert record["whole"]["ratio"] > 0 and record["whole"]["sparse"]["samples"] == 2
    assert [curve["layer"] for curve in record["curves"]] == ["first", "second"]
    # What is pruned for the record is swept from the weights before: up to their own density.
    assert record["curves"][0]["points"][-1]["x"] == 1.0
    assert record["settings"]["prune"] == 0.3 and record["machine"]["cores"] >= 1 and record["versions"]["torch"]
    assert record["command"].startswith("spokeshave bench-cpu") and record["max_relative_error"] < 1e-5


@needs_generated_code
def test_the_tables_name_every_layer():
    console = Console(width=160, record=True, file=io.StringIO())
    for table in small_benchmark().tables():
        console.print(table)
    text = console.export_text()
    assert all(word in text for word in ("first", "second", "last", "times faster", "bytes on disk"))


@needs_generated_code
def test_the_model_and_the_threads_are_left_as_they_were():
    torch.manual_seed(0)
    model, threads = Shortcut().train(), torch.get_num_threads()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    benchmark(model, SHAPE, BenchmarkSettings(1, threads + 1, 0.1, repeats=1, sweep=0, budget_s=0, tune_s=0))
    assert torch.get_num_threads() == threads and all(part.training for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@needs_generated_code
def test_a_network_that_needs_the_usual_order_of_memory_is_timed_in_it():
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(800, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return self.fc(x.view(x.shape[0], -1))

    with pytest.warns(UserWarning, match="channels-last fails"):
        assert not benchmark(Viewing(), SHAPE, QUICK).whole.channels_last


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch": 0}, "batch: expected at least 1"),
        ({"threads": -1}, "threads: expected at least 1"),
        ({"repeats": 0}, "repeats: expected at least 1"),
        ({"prune": 1.01}, "from 0 to below 1, got 1.01"),
        ({"sweep": -1}, "at least 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(options, says):
    with pytest.raises(InvalidArgument, match=says):
        BenchmarkSettings(**options)


@needs_generated_code
def test_an_input_that_does_not_fit_is_refused():
    with pytest.raises(UnsupportedLayer):
        benchmark(Shortcut(), (1, 12, 12), QUICK)


def test_a_cpu_without_generated_code_is_refused(monkeypatch):
    monkeypatch.setattr(HostCpu, "widest", lambda self: None)
    monkeypatch.setattr(module, "to_sparse", None)
    with pytest.raises(InvalidArgument, match="no code is generated for this CPU.*spokeshave measure"):
        benchmark(Shortcut(), SHAPE, QUICK)
