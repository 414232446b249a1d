"""Bytes are those of the tensors and files that are there."""

import torch
from torch import nn

import spokeshave as ss
from cpu_benchmark_cases import SHAPE, Shortcut, needs_generated_code
from sparse_cases import thin
from spokeshave.cpu_benchmark.footprint import footprint

pytestmark = needs_generated_code


def test_weights_nonzeros_and_files(tmp_path):
    torch.manual_seed(0)
    model, x = thin(Shortcut().eval(), 0.2), torch.randn(2, *SHAPE)
    network, _ = ss.to_sparse(model, x[:1], tune_s=0)
    found = footprint(model, network)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    nonzeros = sum(int(part.weight.count_nonzero()) for part in (model.first, model.second))
    assert found.dense_weights == 4 * parameters
    assert found.nonzeros == 8 * nonzeros  # the engine's order of the linear layer is enough
    assert found.sparse_weights == found.nonzeros + found.code + found.rows
    assert found.sparse_file == ss.save_sparse(network, tmp_path / "file").stat().st_size
    assert 4 * parameters < found.dense_file < 4 * parameters + 4096
    assert found.code > 4 * int(model.first.weight.count_nonzero() + model.second.weight.count_nonzero())
    assert found.rows > 4 * int(model.last.weight.count_nonzero()) and found.dense_layers == 0
    assert found.arenas >= sum(engine.arena_bytes for part in network.segments for engine in part.engines()) > 0


def test_engines_are_counted_once_for_shared_code():
    torch.manual_seed(0)
    model, x = thin(Shortcut().eval(), 0.2), torch.randn(2, *SHAPE)
    network, _ = ss.to_sparse(model, x[:1], tune_s=0)
    before = footprint(model, network)
    (segment,) = network.segments
    layout = type(segment.engines()[0])
    with segment.engine(layout), segment.engine(layout):
        pass
    after = footprint(model, network)
    assert after.arenas > before.arenas and (after.code, after.rows) == (before.code, before.rows)


def test_what_torch_runs_cannot_be_stored():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 2, 3)).eval()
    network, _ = ss.to_sparse(model, torch.randn(1, *SHAPE), tune_s=0)
    found = footprint(model, network)
    assert found.sparse_file == 0 and "1: run in torch" in found.why_no_file
