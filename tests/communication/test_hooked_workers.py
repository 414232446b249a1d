"""Hooked workers: two processes with the hook end with the bits of two virtual workers, also when resumed."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

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
