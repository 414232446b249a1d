"""Any number of images, from any number of threads."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from sparse_cases import LAYOUTS, SETS, error, in_double, steps_of, thin
from spokeshave.errors import InvalidArgument
from spokeshave.structures.graph_tracing import trace
from spokeshave.targets.cpu_sparse.batch_lanes_engine import BatchLanesEngine
from spokeshave.targets.cpu_sparse.lowering import lower
from spokeshave.targets.cpu_sparse.pixel_lanes_engine import PixelLanesEngine
from spokeshave.targets.cpu_sparse.segment import Segment
from spokeshave.targets.cpu_sparse.step_fusion import fuse
from spokeshave.timing import using_threads


def small() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(288, 5))
    return thin(network, 0.3), torch.randn(37, 3, 12, 12)


@pytest.mark.parametrize("vectors", SETS)
@pytest.mark.parametrize("images", [1, 3, 16, 17, 37])
def test_batches_of_every_size_match_torch(vectors, images):
    network, x = small()
    segment = Segment(steps_of(network, x), vectors)
    (got,) = segment([x[:images].numpy()])
    assert error(torch.from_numpy(got), in_double(network, x[:images])) < 1e-5


@pytest.fixture(params=[2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_take_images_of_their_own_and_share_what_is_left(monkeypatch, layout, threads, apart):
    network, x = small()
    segment = Segment(steps_of(network, x), SETS[0])
    monkeypatch.setattr(segment, "_apart", lambda layout: apart)
    monkeypatch.setattr(segment, "_gains", lambda *_: True)
    for images in (37, 33, 2):
        (got,) = segment([x[:images].numpy()], layout)
        assert error(torch.from_numpy(got), in_double(network, x[:images])) < 1e-5
    alone = [engine for engine in segment.engines() if engine.threads == 1]
    assert len(alone) == (threads if apart else 0)
    assert len(segment.engines()) == len(alone) + 1  # one more, whose operations all threads share


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_taken_apart_where_that_is_faster(monkeypatch, layout, threads):
    network, x = small()
    for shared_s, wanted in ((10.0, True), (0.0, False)):
        segment = Segment(steps_of(network, x), SETS[0])
        monkeypatch.setattr(segment, "time_s", lambda layout, took=shared_s: took)
        monkeypatch.setattr(segment, "_gains", lambda *_: True)
        (got,) = segment([np.repeat(x.numpy(), 2, axis=0)], layout)
        assert error(torch.from_numpy(got), in_double(network, x.repeat_interleave(2, 0))) < 1e-5
        assert any(engine.threads == 1 for engine in segment.engines()) is wanted


@pytest.mark.parametrize(
    ("alone_s", "together_s", "runs", "used"),
    [(1e-4, 8e-4, [2, 2] + 5 * [2, 1], 1), (8e-4, 1e-4, [2, 2] + 5 * [2, 1], 2), (0.1, 0.004, [2, 2], 2)],
)
def test_threads_are_used_where_they_are_faster(monkeypatch, alone_s, together_s, runs, used):
    network, x = small()
    segment = Segment(steps_of(network, x), SETS[0])
    now, calls, real = [0.0], [], PixelLanesEngine.run

    def run(engine: PixelLanesEngine) -> None:
        calls.append(engine.threads)
        now[0] += together_s if engine.threads > 1 else alone_s
        real(engine)

    monkeypatch.setattr(PixelLanesEngine, "run", run)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    with using_threads(2):
        (got,) = segment([x[:1].numpy()])
        assert error(torch.from_numpy(got), in_double(network, x[:1])) < 1e-5
        # A long run is not waited for on one thread.
        assert calls == [*runs, used] and [engine.threads for engine in segment.engines()] == [used]
        segment([x[:1].numpy()])
    assert calls == [*runs, used, used]
    with using_threads(1):
        segment([x[:1].numpy()])
    assert calls[-1] == 1


def test_no_image_gives_no_result():
    network, x = small()
    (got,) = Segment(steps_of(network, x), SETS[0])([x[:0].numpy()])
    assert got.shape == (0, 5)


def test_four_callers_at_once_get_their_own_results():
    network, x = small()
    segment = Segment(steps_of(network, x), SETS[0])
    wanted = in_double(network, x).float().numpy()

    def call(first: int) -> float:
        worst = 0.0
        for _ in range(20):
            (got,) = segment([np.ascontiguousarray(x[first : first + 19].numpy())])
            worst = max(worst, float(np.abs(got - wanted[first : first + 19]).max()))
        return worst

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(call, [0, 5, 11, 18])) < 1e-5


def test_a_second_caller_shares_the_code():
    network, x = small()
    segment = Segment(steps_of(network, x), SETS[0])
    with segment.engine(PixelLanesEngine) as one, segment.engine(PixelLanesEngine) as two:
        assert one is not two and one.code is two.code and one.arena is not two.arena
    with segment.engine(PixelLanesEngine) as again:
        assert again is two or again is one


def test_a_layout_is_timed_once():
    network, x = small()
    segment = Segment(steps_of(network, x), SETS[0])
    assert segment.time_s(BatchLanesEngine) == segment.time_s(BatchLanesEngine) > 0


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + y


def test_inputs_that_would_be_read_beyond_their_end_are_refused():
    x = torch.randn(4, 3, 6, 6)
    segment = Segment(fuse(lower(trace(Sum().eval(), (x, x)))), SETS[0])
    for other in (x[:1], x.to(torch.uint8), x[:, :2]):
        with pytest.raises(InvalidArgument, match="as many images as the first"):
            segment([x.numpy(), other.numpy()])
