"""Variants have as many parameters, and learn."""

from pathlib import Path

import torch
from conv_m_ablation import VARIANTS, Options, accuracies, network

from spokeshave.data import Split, Splits


def striped(count: int) -> Split:
    """Two classes that are easy to tell apart."""
    labels = torch.arange(count) % 2
    images = torch.randint(0, 60, (count, 3, 32, 32), generator=torch.Generator().manual_seed(count))
    images[labels == 1, :, ::2] += 150
    return Split(images.to(torch.uint8), labels)


def test_variants_are_of_one_size() -> None:
    assert len({sum(one.numel() for one in network(kinds, 10).parameters()) for kinds in VARIANTS.values()}) == 1
    assert len(set(VARIANTS.values())) == len(VARIANTS) == 4


def test_a_variant_learns_and_a_second_command_finds_it(tmp_path: Path) -> None:
    splits = Splits("striped", striped(1280), striped(60), ("even", "striped"))
    options, job = Options(epochs=6, run_dir=tmp_path), ("and deconvolution, stride 2", 0)
    found = accuracies((splits, options), job, lambda said: None)
    assert min(found[:2]) > 0.9 and found[2] > 0
    assert (tmp_path / "and-deconvolution-stride-2-seed-0" / "checkpoint.safetensors").is_file()
    assert accuracies((splits, options), job, lambda said: None) == found
