"""FSDP2 among real processes, against the definition."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import spokeshave as ss
from gloo_workers import run_workers
from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.ternary_codes import decode_factors, local_scalers, statistics_of, ternarize
from spokeshave.errors import CheckpointError, InvalidArgument, NothingChanged


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(37, 91), nn.ReLU(), nn.Linear(91, 50), nn.Tanh(), nn.Linear(50, 11))


def backward(model: nn.Module, rank: int, step: int) -> None:
    inputs = torch.randn(8, 37, generator=torch.Generator().manual_seed(10 * step + rank))
    model(inputs).square().mean().backward()


def expected(model: nn.Module, workers: int, step: int) -> torch.Tensor:
    """Mean gradient of the first layer: weight and bias are cut into shares of rows, which lie one after the other."""
    theirs = []
    for rank in range(workers):
        twin = copy.deepcopy(model)
        backward(twin, rank, step)
        parts = [twin[0].weight.grad, twin[0].bias.grad]
        rows = -(-91 // workers)
        shares = []
        for owner in range(workers):
            for part in parts:
                share = part[owner * rows : (owner + 1) * rows]
                missing = rows - len(share)
                shares.append(torch.cat([share, share.new_zeros(missing, *share.shape[1:])]).flatten())
        theirs.append(torch.cat(shares))
    scalers = local_scalers(torch.stack([statistics_of(one) for one in theirs]), 2.5)
    sums = torch.zeros(len(theirs[0]), dtype=torch.long)
    for rank, whole in enumerate(theirs):
        # The whole model is sharded as well, and is number 0.
        keys = [stream_key(3, rank, step, workers + owner) for owner in range(workers)]
        pieces = zip(whole.view(workers, -1), keys, strict=True)
        sums += torch.cat([ternarize(piece, scalers.max(), key, scalers[rank]) for piece, key in pieces])
    return sums * decode_factors(scalers.max()[None], workers)[0]


def sharded(rank: int, workers: int) -> int:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    twin = copy.deepcopy(model)
    with pytest.raises(NothingChanged, match="fully_shard"):
        ss.ternary_reduce_scatter(model)
    mesh = init_device_mesh("cpu", (workers,))
    for layer in (model[0], model[2], model[4]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    exchange = ss.ternary_reduce_scatter(model, seed=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        backward(model, rank, step)
        grads: Any = [model[0].weight.grad, model[0].bias.grad]
        rows = -(-91 // workers)
        mean = expected(twin, workers, step).view(workers, -1)[rank]
        own = [grad.to_local().flatten() for grad in grads]
        assert torch.equal(own[0], mean[: len(own[0])])
        assert torch.equal(own[1], mean[rows * 37 :][: len(own[1])])
        optimizer.step()
        with torch.no_grad():
            for parameter, whole in zip(twin.parameters(), model.parameters(), strict=True):
                parameter.copy_(whole.full_tensor())
    sizes = {index: sum(p.numel() for p in twin[index].parameters()) for index in (0, 2, 4)}
    floats = 3 * 4 * sum(sizes.values()) * (workers - 1) / workers
    assert 7 < floats / exchange.bytes_sent < 16  # 16 for codes; the last layer is small and stays float

    kept = exchange.state_dict()
    assert kept == {"steps": {"": 0, "0": 3, "2": 3, "4": 3}, "seed": 3}
    exchange.load_state_dict(kept)
    with pytest.raises(CheckpointError, match="seed 3"):
        exchange.load_state_dict(kept | {"seed": 4})
    with pytest.raises(InvalidArgument, match="no sharded module"):
        ss.ternary_reduce_scatter(model, skip=["fc9"])
    return exchange.bytes_sent


def test_sharded_gradients_are_those_of_the_definition() -> None:
    first, second = run_workers(sharded, 2, timeout_s=240)
    assert first == second
