"""A sparse network as one file."""

import random

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from network_zoo import build
from sparse_cases import SETS, error, thin
from spokeshave.errors import CheckpointError, FileError, UnsupportedLayer
from spokeshave.rewrites.to_sparse import to_sparse
from spokeshave.targets.cpu_sparse.sparse_network_file import load_sparse, save_sparse


@pytest.mark.parametrize("name", ["lenet", "resnet"])
@pytest.mark.parametrize("vectors", SETS)
def test_a_loaded_network_computes_the_same(name, vectors, tmp_path):
    network, example = build(name, 5)
    thin(network, 0.2)
    fast, _ = to_sparse(network, example)
    loaded = load_sparse(save_sparse(fast, tmp_path / "net.safetensors"), vectors)
    x = torch.randn(3, *example.shape[1:])
    assert error(loaded(x), network(x).detach()) < 1e-5 and not loaded.training


def test_only_nonzeros_are_stored(tmp_path):
    network = thin(nn.Sequential(nn.Linear(1000, 1000)), 0.1)
    fast, _ = to_sparse(network, torch.zeros(1, 1000))
    assert save_sparse(fast, tmp_path / "net").stat().st_size < 6.2 * 0.1 * 1e6 + 20_000


def test_a_layer_of_zeros_is_stored_too(tmp_path):
    network = thin(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 4)), 0.0)
    fast, _ = to_sparse(network, torch.zeros(1, 2, 6, 6), tune_s=0)
    loaded, x = load_sparse(save_sparse(fast, tmp_path / "net.safetensors")), torch.randn(2, 2, 6, 6)
    assert torch.equal(loaded(x), network(x).detach())


def test_damage_is_never_a_wrong_result(tmp_path):
    network = thin(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), 0.5)
    x = torch.randn(1, 1, 6, 6)
    fast, _ = to_sparse(network, x)
    path = save_sparse(fast, tmp_path / "net")
    good, wanted = path.read_bytes(), fast(x)
    generator = random.Random(0)
    refused = 0
    for place in [*(generator.randrange(len(good)) for _ in range(40)), *range(len(good) - 8, len(good))]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            assert torch.equal(load_sparse(path)(x), wanted)
        except CheckpointError as problem:
            assert str(path) in str(problem)
            refused += 1
    assert refused > 30
    for length in (0, 7, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            load_sparse(path)


def test_whoever_cuts_the_file_later_does_not_reach_a_loaded_network(tmp_path):
    """In a mapped file the memory of the weights would be gone with it, and the process."""
    network = thin(nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)), 0.5)
    x = torch.randn(2, 3, 9, 9)
    fast, _ = to_sparse(network, x)
    loaded = load_sparse(save_sparse(fast, tmp_path / "net"))
    with open(tmp_path / "net", "r+b") as file:
        file.truncate(10)
    torch.testing.assert_close(loaded(x), fast(x))


def test_another_file_is_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(CheckpointError, match="no sparse network"):
        load_sparse(tmp_path / "other")
    with pytest.raises(FileError):
        load_sparse(tmp_path / "missing")
    with pytest.raises(FileError):
        save_sparse(to_sparse(nn.Linear(2, 2), torch.zeros(1, 2))[0], tmp_path / "other" / "net")


def test_layers_that_torch_runs_cannot_be_stored(tmp_path):
    fast, _ = to_sparse(nn.Sequential(nn.Linear(2, 2), nn.Softplus()), torch.zeros(1, 2))
    with pytest.raises(UnsupportedLayer, match="to_sparse again"):
        save_sparse(fast, tmp_path / "net")
    assert not (tmp_path / "net").exists()
