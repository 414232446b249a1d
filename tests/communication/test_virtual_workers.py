"""Virtual workers against the definition of the codes, worker by worker."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.ternary_codes import Deviation, decode_factors, local_scalers, statistics_of, ternarize
from spokeshave.communication.ternary_options import Granularity, TernaryOptions
from spokeshave.communication.virtual_workers import VirtualWorkers
from spokeshave.data import Batches, Split
from spokeshave.errors import InvalidArgument
from spokeshave.train_settings import Precision, TrainSettings
from spokeshave.training import train


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))


def worker_of(model: nn.Module) -> Callable[[Tensor, Tensor], float]:
    def one_worker(inputs: Tensor, labels: Tensor) -> float:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        return float(loss.detach())

    return one_worker


def by_the_definition(batches: list[tuple[Tensor, Tensor]], options: TernaryOptions, step: int) -> dict[str, Tensor]:
    """Each worker with a network of its own; every parameter, as its elements lie in memory."""
    networks = [network() for _ in batches]
    for model, (inputs, labels) in zip(networks, batches, strict=True):
        worker_of(model)(inputs, labels)
    found = {}
    for number, (name, like) in enumerate(networks[0].named_parameters()):
        gradients = [dict(model.named_parameters())[name].grad for model in networks]
        assert all(gradient is not None for gradient in gradients)
        flat = [gradient.flatten() for gradient in gradients if gradient is not None]
        if like.numel() < options.min_numel:
            found[name] = (torch.stack(flat).sum(0) / len(flat)).view_as(like)
            continue
        own = [local_scalers(statistics_of(one)[None], options.clip_factor, options.deviation)[0] for one in flat]
        shared = torch.stack(own).max()
        sums = torch.zeros(like.numel())
        for rank, gradient in enumerate(flat):
            scaler = shared if options.share_scaler else own[rank]
            codes = ternarize(gradient, scaler, stream_key(options.seed, rank, step, number), own[rank])
            sums += codes if options.share_scaler else codes * decode_factors(scaler[None], len(flat))
        found[name] = (sums * decode_factors(shared[None], len(flat)) if options.share_scaler else sums).view_as(like)
    return found


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize(
    "options",
    [
        TernaryOptions(min_numel=0, seed=5),
        TernaryOptions(clip_factor=1.0, min_numel=1, deviation=Deviation.ABOUT_MEAN),
        TernaryOptions(clip_factor=None, min_numel=1),
        TernaryOptions(share_scaler=False, min_numel=64),
    ],
)
def test_gradients_are_the_definitions(workers: int, options: TernaryOptions) -> None:
    split = Split(torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8), torch.arange(16) % 4)
    whole = Batches(split, 8, seed=2)
    shares = [Batches(split, 8 // workers, seed=2, rank=rank, world_size=workers) for rank in range(workers)]
    model = network()
    virtual = VirtualWorkers(workers, options)
    virtual.attach(model)
    losses = []
    for step in (0, 1):
        model.zero_grad(set_to_none=True)
        losses.append(virtual.backward(step, *whole.batch(0, step), worker_of(model)))
        wanted = by_the_definition([share.batch(0, step) for share in shares], options, step)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, wanted[name]), name
    assert losses[0] != losses[1]


def test_the_share_of_zero_codes() -> None:
    model = nn.Linear(64, 64, bias=False)
    virtual = VirtualWorkers(2, TernaryOptions(clip_factor=None))
    virtual.attach(model)

    def even(inputs: Tensor, labels: Tensor) -> float:
        model.weight.grad = torch.full_like(model.weight, -0.25)
        model.weight.grad[:16] = 0
        return 1.0

    virtual.backward(0, torch.zeros(2, 64), torch.zeros(2, dtype=torch.int64), even)
    assert virtual.report() == {"zero_codes": {"weight": 0.25}}  # all others are as large as the scaler: no draw
    assert model.weight.grad is not None
    assert torch.equal(model.weight.grad[16:].unique(), torch.tensor([-0.25]))


def test_channels_last_counts_elements_as_they_lie_in_memory() -> None:
    model = network().to(memory_format=torch.channels_last)
    virtual = VirtualWorkers(1, TernaryOptions(min_numel=1))
    virtual.attach(model)
    inputs = torch.rand(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(4)
    worker_of(model)(inputs, labels)
    weight = model.get_parameter("0.weight")
    assert weight.grad is not None and not weight.is_contiguous()
    flat = weight.grad.permute(0, 2, 3, 1).reshape(-1)
    scaler = local_scalers(statistics_of(flat)[None], 2.5)[0]
    codes = ternarize(flat, scaler, stream_key(0, 0, 0, 0), scaler).view(8, 3, 3, 3).permute(0, 3, 1, 2)
    model.zero_grad(set_to_none=True)
    virtual.backward(0, inputs, labels, worker_of(model))
    assert torch.equal(weight.grad, codes * scaler)
    assert weight.grad.stride() == weight.stride()


def test_unused_and_frozen_parameters_keep_no_gradient() -> None:
    model = network()
    model.get_parameter("0.bias").requires_grad_(False)
    model.add_module("4", nn.Identity())
    model[4].register_parameter("spare", nn.Parameter(torch.zeros(2000)))
    virtual = VirtualWorkers(2, TernaryOptions())
    virtual.attach(model)
    virtual.backward(0, torch.rand(4, 3, 8, 8), torch.arange(4), worker_of(model))
    assert [name for name, p in model.named_parameters() if p.grad is None] == ["0.bias", "4.spare"]


def test_infinite_gradients_come_out_as_no_number() -> None:
    model = nn.Linear(64, 32, bias=False)
    virtual = VirtualWorkers(2, TernaryOptions())
    virtual.attach(model)

    def broken(inputs: Tensor, labels: Tensor) -> float:
        model.weight.grad = torch.full_like(model.weight, float("inf") if int(labels[0]) else 1.0)
        return 1.0

    virtual.backward(0, torch.zeros(2, 64), torch.arange(2), broken)
    assert model.weight.grad is not None and not torch.isfinite(model.weight.grad).any()


def test_what_cannot_be_dealt_out_is_refused() -> None:
    virtual = VirtualWorkers(3, TernaryOptions())
    virtual.attach(network())
    with pytest.raises(InvalidArgument, match="4 images cannot be dealt out evenly to 3"):
        virtual.backward(0, torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64), lambda *_: 0.0)
    with pytest.raises(InvalidArgument, match="at least one worker"):
        VirtualWorkers(0, TernaryOptions())
    with pytest.raises(InvalidArgument, match="no buckets"):
        VirtualWorkers(2, TernaryOptions(granularity=Granularity.BUCKET))


def test_training_resumes_bit_for_bit_and_refuses_other_workers(tmp_path) -> None:
    split = Split(torch.randint(0, 256, (48, 3, 8, 8), dtype=torch.uint8), torch.arange(48) % 4)
    settings = TrainSettings(epochs=3, learning_rate=0.02, checkpoint_every=2, precision=Precision.FLOAT32)

    def go(folder, workers: int = 2, stop: bool = False, **others) -> nn.Module:
        def log(row) -> None:
            assert set(row["exchange"]["zero_codes"]) == {"3.weight"}
            if stop:
                raise KeyboardInterrupt

        model = network()
        batches = Batches(split, 8, drop_last=True)
        train(
            model, batches, Batches(split, 8), replace(settings, **others), run_dir=folder, resume=True, log=log,
            exchange=VirtualWorkers(workers, TernaryOptions()),
        )  # fmt: skip
        return model

    whole = go(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", stop=True)
    resumed = go(tmp_path / "cut")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(Exception, match="made with other settings"):
        go(tmp_path / "cut", workers=4)
