"""Hooked workers: two processes with the hook end with the bits of two virtual workers, also when resumed."""

import multiprocessing
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn

from gloo_workers import WorkerFailed, run_workers
from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.hooked_workers import HookedWorkers
from spokeshave.communication.ternary_options import TernaryOptions
from spokeshave.communication.ternary_wire import Wire
from spokeshave.communication.virtual_workers import VirtualWorkers
from spokeshave.data import Batches, Split
from spokeshave.errors import InvalidArgument
from spokeshave.gradient_exchange import GradientExchange
from spokeshave.train_settings import TrainSettings
from spokeshave.training import train

SETTINGS = TrainSettings(epochs=2, learning_rate=0.05, checkpoint_every=3)
OPTIONS = TernaryOptions(min_numel=300, seed=7)


def digits_of(count: int) -> Split:
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split(images, torch.arange(count) % 4)


def learn(exchange: GradientExchange, folder: Path, rank: int, workers: int, stop_after: int = 0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    batches = Batches(digits_of(64), 16 // workers, drop_last=True, rank=rank, world_size=workers)

    def log(row: dict) -> None:
        if row["epoch"] == stop_after:
            raise KeyboardInterrupt

    validation = Batches(digits_of(16), 16)
    train(model, batches, validation, SETTINGS, run_dir=folder, resume=True, log=log, exchange=exchange)
    return model


def _worker(rank: int, folder: Path, wire: Wire, pack: Pack, resumed: bool) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    if resumed:
        with pytest.raises(KeyboardInterrupt):
            learn(HookedWorkers(OPTIONS, wire, pack), folder / "run", rank, 2, stop_after=1)
        distributed.barrier()
    exchange = HookedWorkers(OPTIONS, wire, pack)
    model = learn(exchange, folder / "run", rank, 2)
    report = exchange.report()
    assert report["bytes_sent"] > 0 and set(report["zero_codes"]) == {"3.weight"}
    torch.save(model.state_dict(), folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("wire", "pack", "resumed"),
    [(Wire.AUTO, Pack.TWO_BIT, True), (Wire.ALLTOALL, Pack.BASE3, False), (Wire.LANES, Pack.TWO_BIT, False)],
)
def test_two_processes_train_as_two_virtual_workers(tmp_path: Path, wire: Wire, pack: Pack, resumed: bool) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(rank, tmp_path, wire, pack, resumed)) for rank in range(2)]
    for worker in workers:
        worker.start()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        wanted = learn(VirtualWorkers(2, OPTIONS), tmp_path / "virtual", 0, 1).state_dict()
    finally:
        torch.set_num_threads(threads)
    for worker in workers:
        worker.join(240)
        assert worker.exitcode == 0
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert all(torch.equal(got[name], value) for name, value in wanted.items())


def test_a_process_that_runs_alone_has_no_hook() -> None:
    with pytest.raises(InvalidArgument, match="VirtualWorkers"):
        HookedWorkers(OPTIONS).attach(nn.Linear(2, 2))


class Killed(HookedWorkers):
    """One of whose workers is gone in the sixth step."""

    def backward(self, step: int, *rest: Any) -> float:
        if step == 5 and distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().backward(step, *rest)


def until_one_is_killed(rank: int, workers: int, folder: str) -> None:
    learn(Killed(OPTIONS), Path(folder), rank, workers)


def resumed_to_the_end(rank: int, workers: int, folder: str) -> list[bytes]:
    model = learn(HookedWorkers(OPTIONS), Path(folder), rank, workers)
    return [parameter.detach().numpy().tobytes() for parameter in model.parameters()]


def test_after_a_worker_was_killed_the_others_end_and_a_resumed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed) as failure:
        run_workers(until_one_is_killed, 2, str(tmp_path / "run"), grace_s=60)
    assert "worker 1 of 2 died with exit status -9" in str(failure.value)
    assert re.search(
        r"ExchangeFailed: terngrad_hook: bucket \d of step 5 could not .* worker 0 of 2", str(failure.value)
    )
    first, second = run_workers(resumed_to_the_end, 2, str(tmp_path / "run"))
    alone = learn(VirtualWorkers(2, OPTIONS), tmp_path / "alone", 0, 1)
    assert first == second == [parameter.detach().numpy().tobytes() for parameter in alone.parameters()]
