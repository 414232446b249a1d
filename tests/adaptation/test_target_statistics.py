"""Statistics of batch normalization against means and variances taken by hand."""

import torch
from torch import nn

from spokeshave.adaptation.target_statistics import refresh_statistics
from spokeshave.data import Batches, Split


def images_of(count: int) -> Split:
    return Split(torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))


def test_they_become_the_targets() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 2))
    network.train()
    network[1].eval()
    split = images_of(20)
    weights = [parameter.clone() for parameter in network.parameters()]
    assert refresh_statistics(network, Batches(split, 20, shuffle=False)) == 1
    pixels = split.images.float() / 255
    norm = network[0]
    torch.testing.assert_close(norm.running_mean, pixels.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, pixels.var((0, 2, 3)))
    assert norm.momentum == 0.1 and norm.training and not network[1].training
    assert all(torch.equal(one, other) for one, other in zip(weights, network.parameters(), strict=True))


def test_a_second_pass_changes_nothing() -> None:
    network, batches = nn.Sequential(nn.BatchNorm2d(3)), Batches(images_of(24), 8, shuffle=False)
    refresh_statistics(network, batches)
    first = network[0].running_var.clone()
    refresh_statistics(network, batches)
    assert torch.equal(first, network[0].running_var)


def test_files_sorted_by_class_and_a_short_last_batch_change_little() -> None:
    dark, light = (torch.randint(low, low + 60, (320, 3, 4, 4), dtype=torch.uint8) for low in (0, 180))
    split = Split(torch.cat([dark, light[:2]]), torch.zeros(322, dtype=torch.int64))  # in file order: 320, and 2
    mixed = Split(torch.cat([dark, light]), torch.zeros(640, dtype=torch.int64))
    for one in (split, mixed):
        network, pixels = nn.Sequential(nn.BatchNorm2d(3)), one.images.float() / 255
        refresh_statistics(network, Batches(one, 320, shuffle=False))
        torch.testing.assert_close(network[0].running_mean, pixels.mean((0, 2, 3)), atol=1e-4, rtol=0)
        torch.testing.assert_close(network[0].running_var, pixels.var((0, 2, 3)), rtol=0.05, atol=0)


def test_a_network_without_batch_normalization_is_left_alone() -> None:
    assert refresh_statistics(nn.Flatten(), Batches(images_of(4), 2)) == 0
