"""A run that is looked at step by step does the same work, and every step is accounted for."""

import time

import pytest
import torch
from torch import nn

import spokeshave as ss
from cpu_benchmark_cases import SHAPE, Shortcut, needs_generated_code, plan_dense
from sparse_cases import LAYOUTS, error
from spokeshave.errors import InvalidArgument
from spokeshave.targets.cpu_sparse import native_engine
from spokeshave.targets.cpu_sparse.dense_layer import DenseLayer
from spokeshave.targets.cpu_sparse.layer_profile import profile, watched_run
from spokeshave.targets.cpu_sparse.native_engine import ENTERING, LEAVING
from spokeshave.targets.cpu_sparse.network_steps import NetworkSteps

pytestmark = needs_generated_code


def network_and_images(images: int):
    torch.manual_seed(0)
    x = torch.randn(images, *SHAPE)
    return ss.to_sparse(Shortcut().eval(), x[:1], tune_s=0)[0], x


@pytest.mark.parametrize("layout", [None, *LAYOUTS])
def test_steps_come_in_order_and_add_up_to_less_than_the_run(layout):
    network, x = network_and_images(19)
    watched_run(network, (x,), layout)
    begin = time.perf_counter()
    seconds = watched_run(network, (x,), layout)
    whole = time.perf_counter() - begin
    steps = [step.output for step in network.network.steps]
    assert list(seconds) == [ENTERING, *steps, LEAVING]
    assert all(value > 0 for name, value in seconds.items() if name != "flatten") and sum(seconds.values()) < whole


def test_looking_changes_no_result_and_leaves_no_trace():
    network, x = network_and_images(19)
    with torch.no_grad():
        before = network(x)
        seconds: dict[str, float] = {}
        assert torch.equal(network.run((x,), None, seconds), before) and seconds
        kept = dict(seconds)
        assert torch.equal(network(x), before) and seconds == kept
        assert all(engine.seconds is None for segment in network.segments for engine in segment.engines())


def test_every_operation_runs_once_in_its_place(monkeypatch):
    network, x = network_and_images(1)
    network(x)
    ran: list[tuple[int, int]] = []
    monkeypatch.setattr(native_engine, "run_sequence_at", lambda at, count, threads: ran.append((at, count)))
    network.run((x,))
    begin, count = ran.pop()
    watched_run(network, (x,))
    assert len(ran) == 2 + len(network.network.steps)
    for at, part in ran:  # 16 bytes an operation
        assert at == begin
        begin, count = begin + 16 * part, count - part
    assert count == 0


def test_all_of_a_network_can_run_as_generated_code(monkeypatch):
    network, _ = network_and_images(1)
    assert network.direct() is network
    plan_dense(monkeypatch, "second")
    network, x = network_and_images(3)
    direct = network.direct()
    assert [type(piece) for piece in network.pieces] == [NetworkSteps, DenseLayer, NetworkSteps]
    assert [type(piece) for piece in direct.pieces] == [NetworkSteps]
    with torch.no_grad():
        assert error(direct(x), network(x)) < 1e-5


def test_a_profile_has_a_row_for_every_step_and_for_what_torch_runs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 2, 3)).eval()
    network, _ = ss.to_sparse(model, torch.randn(1, *SHAPE), tune_s=0)
    rows = profile(network, (torch.randn(2, *SHAPE),), repeats=3)
    kinds = [(row.layer, row.kind, row.generated) for row in rows]
    assert kinds == [
        (ENTERING, ENTERING, True),
        ("0", "Convolve", True),
        ("1", "torch", False),
        ("2", "Convolve", True),
        (LEAVING, LEAVING, True),
    ]
    assert all(row.time.samples == 3 and row.time.median_s > 0 for row in rows)


def test_a_network_that_runs_plainly_has_no_profile():
    network, x = network_and_images(1)
    network.plain = True
    with pytest.raises(InvalidArgument, match="set .plain = False"):
        profile(network, (x,))
    with pytest.raises(InvalidArgument, match="at least 1, got 0"):
        profile(network, (x,), repeats=0)
