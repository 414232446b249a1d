"""Variants have as many parameters, and learn."""

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


def test_a_variant_learns() -> None:
    splits = Splits("striped", striped(1280), striped(60), ("even", "striped"))
    for found in accuracies((splits, Options(epochs=6)), ("and deconvolution, stride 2", 0), lambda said: None):
        assert found > 0.9
