"""Is a shrunk network faster in fact? Measured against predicted speedup, per layer and whole, beside torch-pruning.

    python benchmarks/shrink.py                      # the authors' AlexNet weights, ResNet-20, a MobileNet block stack
    python benchmarks/shrink.py --runs runs/lenet-3  # networks that the SSL recipe trained

Before, after and the peer are timed in turns in one process; ratios are medians over pairs with their quartile spread.
Predicted is the ratio of FLOPs: what a machine would give on which every operation costs the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from spokeshave import compare, measure, shrink
from spokeshave.checkpoints import load_checkpoint
from spokeshave.data.skimcaffe import PublishedWeights
from spokeshave.errors import DataError
from spokeshave.ledger import write_row
from spokeshave.models import ResNetCifar
from spokeshave.recipes.ssl import Config as SslConfig
from spokeshave.recipes.ssl import Row, plan_of
from spokeshave.recipes.ssl_alexnet import sparse_alexnet
from spokeshave.structures.groups import GroupKind
from spokeshave.structures.truncation import Keep, truncate


@dataclass(frozen=True)
class Options:
    """What to time."""

    runs: tuple[Path, ...] = ()
    """Folders of finished runs of the SSL recipe, named by their row."""
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


def networks(options: Options) -> Iterator[tuple[str, nn.Module, Tensor, dict[str, list[int]]]]:
    """Name, network, one image, and for the peer: which filters of which layer are zero."""
    image = torch.Generator().manual_seed(0)
    for run in options.runs:
        plan, _ = plan_of(SslConfig(row=Row(run.name)))
        network = plan.network()
        seed = min(run.glob("seed-*"))
        network.load_state_dict(load_checkpoint(seed / "finetune").part("model"))
        shape = {"convnet": (3, 32, 32), "resnet20": (3, 32, 32)}.get(run.name.split("-")[0], (1, 28, 28))
        yield run.name, network.eval(), torch.randn(1, *shape, generator=image), {}
    try:
        network = sparse_alexnet(PublishedWeights.SSL, options.data_dir)
        yield "alexnet-authors-ssl", network, torch.randn(1, 3, 227, 227, generator=image), {}
    except DataError as error:
        Console(stderr=True).print(f"alexnet-authors-ssl is left out: {error}", style="yellow", soft_wrap=True)
    torch.manual_seed(0)
    resnet = ResNetCifar(20).eval()
    keeps = [Keep(name, GroupKind.FILTER, m.out_channels // 2) for name, m in resnet.named_modules() if _inner(name, m)]
    truncate(resnet, keeps)
    zero = {k.layer: _zero_filters(resnet.get_submodule(k.layer)) for k in keeps}
    yield "resnet20-half-synthetic", resnet, torch.randn(1, 3, 32, 32, generator=image), zero


def _inner(name: str, module: nn.Module) -> bool:
    return name.startswith("group") and name.endswith("conv1") and isinstance(module, nn.Conv2d)


def _zero_filters(module: nn.Module) -> list[int]:
    weight = module.get_parameter("weight")
    return [index for index in range(len(weight)) if not weight[index].any()]


def peer(network: nn.Module, image: Tensor, zero: dict[str, list[int]]) -> nn.Module:
    """The same filters taken out by torch-pruning's DependencyGraph, as its documentation does."""
    import copy

    import torch_pruning as tp

    pruned = copy.deepcopy(network)
    graph = tp.DependencyGraph().build_dependency(pruned, example_inputs=image)
    for name, filters in zero.items():
        graph.get_pruning_group(pruned.get_submodule(name), tp.prune_conv_out_channels, idxs=filters).prune()
    return pruned


def main(options: Options) -> None:
    """Time every network and print tables."""
    console = Console()
    for name, network, image, zero in networks(options):
        small, report = shrink(network, image)
        settings: dict[str, Any] = {"threads": options.threads, "batch_sizes": options.batch_sizes}
        timed = compare(network, small, image, repeats=options.repeats, **settings)
        flops = [measure(model, image, latency=False) for model in (network, small)]
        cost = [{layer.name: layer.flops for layer in measured.layers} for measured in flops]
        numbers: dict[str, Any] = {
            "comparison": timed.to_dict(),
            "predicted": flops[0].flops / flops[1].flops,
            "predicted_layers": {n: cost[0][n] / cost[1][n] for n in cost[0] if cost[1].get(n) and cost[0][n]},
            "max_relative_error": report.max_relative_error,
        }
        console.print(_layers(name, numbers))
        console.print(timed.table())
        console.print(
            f"predicted whole {numbers['predicted']:.2f}x; largest relative error {report.max_relative_error:.1e}"
        )
        if zero:
            pruned = peer(network, image, zero)
            against = compare(pruned, small, image, repeats=options.repeats, **settings)
            with torch.no_grad():
                wanted, got = network(image), pruned(image)
            numbers["torch_pruning"] = against.to_dict()
            numbers["torch_pruning_relative_error"] = float((got - wanted).abs().max() / wanted.abs().max())
            console.print("against torch-pruning (before = torch-pruning, after = spokeshave):")
            console.print(against.table())
            console.print(f"torch-pruning's largest relative error {numbers['torch_pruning_relative_error']:.1e}")
        if options.ledger is not None:
            config = {**settings, "repeats": options.repeats}
            write_row("benchmarks", f"shrink-{name}", config, numbers, seeds=[0], wall_s=0.0, directory=options.ledger)


def _layers(name: str, numbers: dict[str, Any]) -> Table:
    table = Table(title=name, title_justify="left", box=None, padding=(0, 2))
    for heading in ("layer", "before us", "after us", "measured", "predicted by FLOPs"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for row in numbers["comparison"]["layers"]:
        predicted = numbers["predicted_layers"].get(row["name"])
        if predicted is not None and row["before_s"] and row["after_s"]:
            before, after = 1e6 * row["before_s"], 1e6 * row["after_s"]
            table.add_row(row["name"], f"{before:.0f}", f"{after:.0f}", f"{before / after:.2f}x", f"{predicted:.2f}x")
    return table


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
