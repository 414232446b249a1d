"""Checkpoints come back whole, and damaged ones are refused with the way out."""

import pytest
import torch

from spokeshave.checkpoints import (
    LATEST,
    PREVIOUS,
    Checkpoint,
    has_checkpoint,
    load_checkpoint,
    require_same_start,
    save_checkpoint,
)
from spokeshave.errors import CheckpointError


def state(value: float) -> Checkpoint:
    tensors = {"model.w": torch.full((40, 50), value), "model.s": torch.tensor(3), "rng.cpu": torch.get_rng_state()}
    return Checkpoint(
        tensors | {"model.cl": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)}, {"step": value}
    )


def test_round_trip_is_exact_and_keeps_the_previous(tmp_path):
    first, second = state(1.0), state(2.0)
    assert not has_checkpoint(tmp_path)
    save_checkpoint(tmp_path, first)
    save_checkpoint(tmp_path, second)
    loaded = load_checkpoint(tmp_path)
    assert loaded.facts == {"step": 2.0}
    assert all(torch.equal(loaded.tensors[n], t) for n, t in second.tensors.items())
    assert set(loaded.part("model")) == {"w", "s", "cl"}
    (tmp_path / LATEST).unlink()  # as if killed between the two renames
    assert load_checkpoint(tmp_path).facts == {"step": 1.0}


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_truncated_is_refused_and_names_the_previous(tmp_path, keep):
    save_checkpoint(tmp_path, state(1.0))
    save_checkpoint(tmp_path, state(2.0))
    path = tmp_path / LATEST
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match=rf"damaged.*rename {PREVIOUS}"):
        load_checkpoint(tmp_path)


def test_a_flipped_bit_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, state(1.0))
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="altered"):
        load_checkpoint(tmp_path)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(tmp_path / "nowhere")
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / LATEST)
    with pytest.raises(CheckpointError, match="not a checkpoint of Spokeshave"):
        load_checkpoint(tmp_path)


def test_a_run_goes_on_only_from_the_weights_that_it_began_with(tmp_path):
    first, other = {"w": torch.zeros(3)}, {"w": torch.ones(3)}
    require_same_start(tmp_path, first, resume=False)
    require_same_start(tmp_path, other, resume=False)  # nothing had been trained
    require_same_start(tmp_path, other, resume=True)
    with pytest.raises(CheckpointError, match="began with other weights"):
        require_same_start(tmp_path, first, resume=True)
    save_checkpoint(tmp_path / "seed-0", Checkpoint({"w": torch.zeros(1)}, {"step": 1}))
    require_same_start(tmp_path, first, resume=False)  # the training will refuse the folder; its note stays
    require_same_start(tmp_path, other, resume=True)
    require_same_start(tmp_path / "older", first, resume=True)  # a run without a note is taken for the same
