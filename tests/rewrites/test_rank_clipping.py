"""Rank clipping: ranks against the SVD, training that goes on as if nothing had happened, resume, refusals."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from gloo_workers import run_workers
from network_zoo import build
from spokeshave.data import Batches, DatasetName, Normalization, Split, load
from spokeshave.errors import CheckpointError, InvalidArgument, TrainingDiverged, UnsupportedLayer
from spokeshave.evaluation import evaluate
from spokeshave.export import export
from spokeshave.regularizers import Regularizer
from spokeshave.rewrites import shrink, to_sparse
from spokeshave.rewrites.rank_clipping import Measured, RankClipping
from spokeshave.rewrites.verification import relative_error
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.train_settings import TrainSettings
from spokeshave.training import train


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(128, 12), nn.ReLU(),
        nn.Linear(12, 10),
    )  # fmt: skip


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)).to(next(net.parameters()))
    for _ in range(count):
        optimizer.zero_grad()
        net(images).square().mean().backward()
        optimizer.step()


def low_rank(net: nn.Sequential, rank: int) -> None:
    for layer in (net[0], net[4]):
        u, s, v = torch.linalg.svd(layer.weight.detach().flatten(1), full_matrices=False)
        layer.weight.data = (u[:, :rank] * s[:rank] @ v[:rank]).reshape(layer.weight.shape)


@pytest.mark.parametrize("measured", Measured)
def test_ranks_are_the_smallest_that_the_error_allows(measured: Measured) -> None:
    net = network()
    low_rank(net, 3)
    before = net(torch.ones(1, 1, 8, 8))
    clipping = RankClipping(net, max_error=1e-8, exclude=["2"], measured=measured)
    assert clipping.ranks == {"0": 8, "4": 12}
    assert clipping.clip() == {"0": 3, "4": 3} and clipping.ranks == {"0": 3, "4": 3} and clipping.changes == 1
    assert torch.allclose(net(torch.ones(1, 1, 8, 8)), before, atol=1e-6)
    assert clipping.clip() == {} and clipping.changes == 1
    assert isinstance(net[0], FactorizedLayer) and isinstance(net[6], nn.Linear)


def test_the_error_of_a_grouped_convolution_is_kept_in_every_group() -> None:
    net = network()
    clipping = RankClipping(net, max_error={"*": 0.2, "0": 0.0}, layers=["2"])
    weight = net[2].product()
    clipping.clip()
    rank = clipping.ranks["2"]
    for part, kept in zip(weight.chunk(2), net[2].product().chunk(2), strict=True):
        assert ((part - kept).square().sum() / part.square().sum()) <= 0.2
    energies = [torch.linalg.svdvals(part.flatten(1)).square() for part in weight.chunk(2)]
    assert max(float(e[rank - 1 :].sum() / e.sum()) for e in energies) > 0.2


@pytest.mark.parametrize("measured", Measured)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_change_that_loses_nothing_leaves_training_as_it_was(measured: Measured, kind: str, order: str) -> None:
    """With plain momentum and rotations the carried memory is exact: the function goes the same way."""
    net = network().double()
    make = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    }[kind]
    if order == "before":  # an optimizer that has seen the dense network
        optimizer = make(net.parameters())
        clipping = RankClipping(net, optimizer, every=10**6, measured=measured)
    else:
        clipping = RankClipping(net, every=10**6, measured=measured)
        optimizer = make(net.parameters())
        clipping.attach(optimizer)
    steps(net, optimizer, 3)
    other, its_optimizer, _ = copy.deepcopy((net, optimizer, clipping))
    for layer in (net[0], net[2], net[4]):
        clipping._cut(layer, layer.rank)
    probe = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    assert not torch.allclose(net[0].basis.weight, other[0].basis.weight)
    assert torch.allclose(net(probe), other(probe), atol=1e-9)
    if kind == "sgd" and measured is Measured.BASIS:
        for _ in range(3):
            steps(net, optimizer, 1)
            steps(other, its_optimizer, 1)
            assert torch.allclose(net(probe), other(probe), atol=1e-9)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.parameters()}
    for parameter in net.parameters():
        memory = optimizer.state[parameter]["momentum_buffer" if kind == "sgd" else "exp_avg"]
        assert memory.shape == parameter.shape and memory.abs().sum() > 0


def test_momentum_of_the_dense_weight_becomes_that_of_the_factors() -> None:
    net = network().double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    steps(net, optimizer, 2)
    memory = optimizer.state[net[4].weight]["momentum_buffer"].clone()
    RankClipping(net, optimizer, layers=["4"])
    basis, combination = net[4].factors()
    assert torch.allclose(optimizer.state[net[4].basis.weight]["momentum_buffer"], combination.T @ memory)
    assert torch.allclose(optimizer.state[net[4].combination.weight]["momentum_buffer"], memory @ basis.T)
    assert net[4].combination.bias is not None and "momentum_buffer" in optimizer.state[net[4].combination.bias]


def test_it_clips_every_so_many_steps_until_the_end_and_not_at_strength_zero() -> None:
    seen = {}
    for until, strength in ((None, 1.0), (4, 1.0), (None, 0.0)):
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, weight_decay=0.5)
        clipping = RankClipping(net, optimizer, max_error=0.2, every=2, until=until, strength=strength)
        seen[until, strength] = [(steps(net, optimizer, 1), sum(clipping.ranks.values()))[1] for _ in range(9)]
    full = seen[None, 0.0][0]
    assert set(seen[None, 0.0]) == {full}
    changes = [a != b for a, b in zip([full, *seen[None, 1.0]], seen[None, 1.0], strict=False)]
    assert changes[1] and not any(changes[::2])
    assert seen[4, 1.0][:4] == seen[None, 1.0][:4] and len(set(seen[4, 1.0][3:])) == 1


def test_ranks_stop_at_the_least() -> None:
    net = network()
    low_rank(net, 2)
    clipping = RankClipping(net, max_error=1e-8, least={"0": 5, "2": 30})
    clipping.clip()
    assert clipping.ranks == {"0": 5, "2": 4, "4": 2}


def test_finish_makes_layers_whole_that_products_do_not_make_smaller() -> None:
    net = network()
    low_rank(net, 2)
    clipping = RankClipping(net, max_error=1e-8)
    clipping.clip()
    whole = clipping.finish()
    probe = torch.randn(2, 1, 8, 8)
    assert isinstance(whole[4], FactorizedLayer) and isinstance(whole[2], nn.Conv2d)
    assert torch.allclose(whole(probe), net(probe), atol=1e-5) and isinstance(net[2], FactorizedLayer)


def small_batches() -> tuple[Batches, Batches]:
    digits = load(DatasetName.DIGITS)
    normalize = Normalization.scale_only(1, 1 / 256)
    split = Split(digits.train.images[:96, :, ::3, ::3][:, :, :8, :8].contiguous(), digits.train.labels[:96])
    return Batches(split, 16, 0, normalize), Batches(split, 48, 0, normalize)


def clipped_run(folder: Path, resume: bool = False) -> tuple[nn.Module, RankClipping]:
    net = network()
    clipping = RankClipping(net, max_error=0.1, every=4)
    batches, held_out = small_batches()
    plan = TrainSettings(epochs=4, learning_rate=0.05, weight_decay=0.05, checkpoint_every=5)
    train(net, batches, held_out, plan, (clipping,), folder, resume)
    return net, clipping


def test_a_killed_training_resumes_to_the_same_bits_with_its_ranks(tmp_path: Path, monkeypatch) -> None:
    whole, clipping = clipped_run(tmp_path / "whole")
    assert min(clipping.ranks.values()) < 8
    taken, usual = 0, Batches.batch

    def killed(self: Batches, epoch: int, index: int):
        nonlocal taken
        taken += 1
        if taken > 14:
            raise KeyboardInterrupt
        return usual(self, epoch, index)

    monkeypatch.setattr(Batches, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        clipped_run(tmp_path / "part")
    monkeypatch.undo()
    resumed, again = clipped_run(tmp_path / "part", resume=True)
    assert again.ranks == clipping.ranks and again.step == clipping.step
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_it_is_a_regularizer_whose_state_is_checked() -> None:
    clipping = RankClipping(network())
    assert isinstance(clipping, Regularizer) and clipping.energy().item() == 0
    state = clipping.state_dict()
    with pytest.raises(CheckpointError, match="another model"):
        clipping.load_state_dict({"step": state["step"]})
    for key, value in (("step", torch.tensor(-5)), ("rank.0", torch.tensor([1, 2])), ("rank.0", torch.tensor(3.7))):
        with pytest.raises(CheckpointError, match="damaged|another model"):
            clipping.load_state_dict(state | {key: value})
    with pytest.raises(CheckpointError, match=r"0: expected a rank of 1\.\.8, got 9"):
        clipping.load_state_dict(state | {"rank.0": torch.tensor(9)})
    assert clipping.ranks["0"] == 8


def test_wrong_arguments_are_refused_by_name() -> None:
    for options, message in (
        ({"max_error": 1.0}, "max_error of 0"),
        ({"every": 0}, "every"),
        ({"least": 0}, "least of 0"),
        ({"layers": ["conv9"]}, "conv9"),
        ({"max_error": {"4": 0.1}}, "max_error of 0"),
        ({"max_error": {"*": 0.1, "typo": 0.5}}, "typo"),
        ({"least": {"typo": 2}}, "typo"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            RankClipping(network(), **options)
    with pytest.raises(InvalidArgument, match="nothing to clip"):
        RankClipping(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(InvalidArgument, match="holds none"):
        RankClipping(network(), torch.optim.SGD(network().parameters(), lr=0.1))
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    tied[1].weight = tied[0].weight
    with pytest.raises(UnsupportedLayer, match=r"0 \(Linear\).*tied"):
        RankClipping(tied)
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3)), nn.Flatten(), nn.Linear(8, 4))
    with pytest.raises((UnsupportedLayer, InvalidArgument)):
        RankClipping(normed)


def clipped_worker(rank: int, workers: int) -> tuple[dict[str, int], bytes]:
    torch.manual_seed(0)
    batches, held_out = small_batches()
    shared = Batches(batches.split, 16, 0, batches.normalize, rank=rank, world_size=workers)
    net = network()
    clipping = RankClipping(net, max_error=0.1, every=3)
    train(net, shared, held_out, TrainSettings(epochs=2, learning_rate=0.05, weight_decay=0.05), (clipping,))
    return clipping.ranks, b"".join(p.detach().contiguous().numpy().tobytes() for p in net.parameters())


def test_workers_of_ddp_clip_alike_and_stay_equal() -> None:
    first, second = run_workers(clipped_worker, 2)
    assert first == second and min(first[0].values()) < 8


@pytest.mark.parametrize("name", ["lenet", "resnet", "mobilenet"])
def test_a_clipped_network_goes_on_through_the_other_rewrites_and_export(name: str, tmp_path: Path) -> None:
    net, example = build(name, 3)
    clipping = RankClipping(net, max_error=0.3)
    assert clipping.clip()
    whole = clipping.finish().eval()
    with torch.no_grad():
        for module in whole.modules():
            if isinstance(module, FactorizedLayer) and module.rank > 2:
                module.basis.weight[::3] = 0  # basis filters that shrink takes away
    wanted = whole(example)
    small, report = shrink(whole, example)
    assert report.parameters_after < report.parameters_before
    assert relative_error(small(example), wanted) < 1e-4
    fast, _ = to_sparse(whole, example)
    assert relative_error(fast(example), wanted) < 1e-4
    export(whole, tmp_path / "clipped.pt2", example)
    export(whole, tmp_path / "clipped.safetensors")
    loaded = torch.export.load(tmp_path / "clipped.pt2").module()
    assert relative_error(loaded(example), wanted) < 1e-4


class Twice(nn.Module):
    """One layer under two names, and an encoder whose fused path reads weights by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = self.first
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.second(torch.relu(self.first(x)))))


def test_a_shared_layer_stays_shared_and_fused_encoders_run() -> None:
    torch.manual_seed(0)
    net = Twice().eval()
    probe = torch.randn(2, 3, 8)
    with torch.no_grad():
        before = net(probe)
        clipping = RankClipping(net, max_error=0.2)
        assert net.first is net.second and isinstance(net.first, FactorizedLayer)
        assert {"first", "encoder.linear1", "encoder.linear2"} <= set(clipping.ranks)
        assert torch.allclose(net(probe), before, atol=1e-5)
        clipping.clip()
        whole = clipping.finish()
        assert whole.first is whole.second and torch.allclose(whole(probe), net(probe), atol=1e-5)


def test_layers_that_cannot_be_trained_as_products_are_refused_before_anything_changes() -> None:
    frozen = network()
    frozen[4].weight.requires_grad_(False)
    hooked = network()
    hooked[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    upwards = nn.Sequential(FactorizedLayer.of("up", nn.ConvTranspose2d(2, 2, 2), 2), nn.Flatten(), nn.Linear(2, 2))
    for net, message in ((frozen, "4 .*frozen"), (hooked, "0 .*hooks"), (upwards, "0 .*transposed")):
        kinds = [type(module) for module in net.modules()]
        with pytest.raises(UnsupportedLayer, match=message):
            RankClipping(net)
        assert [type(module) for module in net.modules()] == kinds
    net = network()
    with pytest.raises(InvalidArgument, match="holds none"):
        RankClipping(net, torch.optim.SGD(network().parameters(), lr=0.1))
    assert isinstance(net[0], nn.Conv2d)


def test_steps_of_the_first_of_several_optimizers_count_and_none_is_attached_twice() -> None:
    net = network()
    optimizers = [torch.optim.SGD(net[:3].parameters(), lr=0.01), torch.optim.SGD(net[3:].parameters(), lr=0.01)]
    clipping = RankClipping(net, every=10**6)
    handles = [clipping.attach(optimizer) for optimizer in optimizers]
    for _ in range(3):
        for optimizer in optimizers:
            steps(net, optimizer, 1)
    assert clipping.step == 3
    with pytest.raises(InvalidArgument, match="attached already"):
        clipping.attach(optimizers[0])
    handles[0].remove()
    clipping.attach(optimizers[0])
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    clipping.clip()
    assert held - {id(p) for p in net.parameters()} == set() or clipping.changes


def test_optimizers_with_other_memories_stay_finite_or_are_refused() -> None:
    net = network()
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3, centered=True)
    clipping = RankClipping(net, optimizer, max_error=0.3, every=2)
    steps(net, optimizer, 8)
    assert clipping.changes and all(torch.isfinite(p).all() for p in net.parameters())
    net = network()
    optimizer = torch.optim.Adafactor(net.parameters(), lr=1e-3)
    RankClipping(net, optimizer, max_error=0.3, every=2)
    with pytest.raises(InvalidArgument, match="Adafactor keeps"):
        steps(net, optimizer, 4)


def test_weights_that_are_not_finite_are_named() -> None:
    net = network()
    clipping = RankClipping(net)
    net[4].basis.weight.data[0, 0] = float("nan")
    with pytest.raises(TrainingDiverged, match="4 is not finite"):
        clipping.clip()


def test_keep_best_keeps_the_best_of_the_last_form(tmp_path: Path) -> None:
    net = network()
    batches, held_out = small_batches()
    plan = TrainSettings(epochs=4, learning_rate=0.05, weight_decay=0.05, keep_best=True)
    history = train(net, batches, held_out, plan, (RankClipping(net, max_error=0.1, every=4),), tmp_path / "run")
    ranks = [row["ranks"] for row in history.rows]
    same = [row for row in history.rows if row["ranks"] == ranks[-1]]
    best = max(same, key=lambda row: row["validation_accuracy"])
    assert ranks[0] != ranks[-1] and history.best_epoch == best["epoch"]
    assert evaluate(net, held_out).accuracy == best["validation_accuracy"]
