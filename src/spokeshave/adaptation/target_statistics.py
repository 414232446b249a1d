"""Statistics of the target in batch normalization: what the weights were trained around, measured on target images.

Li, Wang, Shi, Liu, Hou: Revisiting Batch Normalization For Practical Domain Adaptation, arXiv:1603.04779, 2016.
Departs from the paper: averages over batches in a random order weigh alike, and are made after a training that has seen
the target.
"""

import torch
from torch import nn

from spokeshave.data import Batches

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@torch.no_grad()
def refresh_statistics(network: nn.Module, target: Batches) -> int:
    """Take running means and variances of batch normalization anew, from target images; weights stay.

    Args:
        network: in place; its mode stays.
        target: every image is seen once, unaugmented, in batches of a random order: see `Batches.evenly`.

    Returns:
        How many layers have new statistics; 0 where the network has no batch normalization, and nothing was done.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, _NORMS) and layer.track_running_stats]
    if not norms:
        return 0
    modes = {module: module.training for module in network.modules()}
    momenta = [layer.momentum for layer in norms]
    network.eval()  # dropout stays off
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    try:
        for images, _ in target.evenly():
            if len(images) > 1:  # one image alone has no variance where maps are of one pixel
                network(images)
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return len(norms)
