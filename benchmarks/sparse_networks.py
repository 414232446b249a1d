"""How fast is a sparse network, whole, against the same network in torch? Measured in turns.

    python benchmarks/sparse_networks.py                       # the authors' AlexNet weights, ResNet-20 at 15 % density
    python benchmarks/sparse_networks.py --threads 1 2

Ratios are medians over pairs with their quartile spread. AlexNet's convolutions
have the pattern that L1 training left (SkimCaffe, 0.56256), its linear layers are pruned to 10 % by magnitude from
random weights. The other networks are pruned at random, which is harder on direct sparse convolution than training is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from torch import Tensor, nn

from spokeshave import compare, to_sparse
from spokeshave.data.skimcaffe import PublishedWeights
from spokeshave.errors import DataError
from spokeshave.ledger import write_row
from spokeshave.models import ConvNet, ResNetCifar
from spokeshave.recipes.ssl_alexnet import sparse_alexnet

LINEAR_DENSITY = 0.1
RANDOM_DENSITY = 0.15


@dataclass(frozen=True)
class Options:
    """What to time."""

    data_dir: Path | None = None
    """Folder with skimcaffe-alexnet/; else SPOKESHAVE_DATA."""
    batch_sizes: tuple[int, ...] = (1, 16)
    """Images in a batch."""
    threads: tuple[int, ...] = (1,)
    """Threads to time with."""
    repeats: int = 30
    """Timed pairs of each setting."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row a network there."""


def prune(network: nn.Module, kind: type[nn.Module], density: float) -> nn.Module:
    """Keep the largest weights of each layer of a kind."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, kind):
                weight = module.get_parameter("weight")
                kept = weight.abs().flatten().topk(int(density * weight.numel())).indices
                mask = torch.zeros(weight.numel())
                mask[kept] = 1
                weight.mul_(mask.view_as(weight))
    return network.eval()


def networks(options: Options) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Name, network, one image."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    try:
        network = sparse_alexnet(PublishedWeights.L1, options.data_dir)
        yield "alexnet-l1", prune(network, nn.Linear, LINEAR_DENSITY), torch.randn(1, 3, 227, 227, generator=generator)
    except DataError as error:
        Console(stderr=True).print(f"alexnet-l1 is left out: {error}", style="yellow", soft_wrap=True)
    for name, network in (("resnet20", ResNetCifar(20)), ("convnet", ConvNet())):
        image = torch.randn(1, 3, 32, 32, generator=generator)
        yield f"{name}-synthetic", prune(network, nn.Conv2d, RANDOM_DENSITY), image


def main(options: Options) -> None:
    """Time every network and print tables."""
    console = Console()
    for name, network, image in networks(options):
        fast, report = to_sparse(network, image)
        timed = compare(
            network, fast, image, repeats=options.repeats, threads=options.threads, batch_sizes=options.batch_sizes
        )
        console.print(f"{name}: largest relative error {report.max_relative_error:.1e}")
        console.print(timed.table())
        if options.ledger is not None:
            config = {"threads": options.threads, "batch_sizes": options.batch_sizes, "repeats": options.repeats}
            numbers = {"comparison": timed.to_dict(), "max_relative_error": report.max_relative_error}
            write_row("benchmarks", f"sparse-{name}", config, numbers, seeds=[0], wall_s=0.0, directory=options.ledger)


if __name__ == "__main__":
    main(tyro.cli(Options))
