"""Whole sparse networks beside the same network in DeepSparse, OpenVINO, ONNX Runtime and torch.

    python benchmarks/peer_environments.py --folder build/peers     # once; without it: ours and torch only
    python benchmarks/sparse_networks.py --peers build/peers --threads 1 2
    python benchmarks/sparse_networks.py --networks convnet=runs/a/network.safetensors
    python benchmarks/sparse_networks.py --quick                    # ConvNet, pruned at random, a minute at most

AlexNet's convolutions have the pattern that L1 training left (SkimCaffe, 0.56256), its linear layers are pruned to 10 %
by magnitude from random weights. Its graph is written in several forms, and the best one of each peer counts. Networks
given as files come as they are; without any, ConvNet and ResNet-20 are pruned at random, which is harder on direct
sparse convolution than training is. Everything takes turns; `contestants.py` says which clock counts.
"""

import random
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import tyro
from contestants import (
    DENSE,
    OURS,
    PEERS,
    SUFFIX,
    Contestant,
    TurnOptions,
    best_of,
    load,
    ratio,
    start,
    take_turns,
    write_models,
)
from onnx_graphs import Groups, Normalization, save_alexnet
from rich.console import Console
from rich.table import Table
from sparse_conv_bars import Bar
from torch import nn

from spokeshave.data.skimcaffe import PublishedWeights
from spokeshave.errors import DataError
from spokeshave.export import export, load_safetensors
from spokeshave.ledger import write_row
from spokeshave.models import ConvNet, ResNetCifar
from spokeshave.recipes.ssl_alexnet import sparse_alexnet

LINEAR_DENSITY = 0.1
RANDOM_DENSITY = 0.15
ALEXNET = "alexnet-l1"
ALEXNET_AT = {1: 2.5, 16: 2.0}
"""Images -> times faster than the best of the three peers."""
TRAINED_AT = {16: 2.0}
"""Images -> times faster than the best dense engine, for networks pruned by training."""
BUILDERS: Mapping[str, Callable[[], nn.Module]] = {"convnet": ConvNet, "resnet20": lambda: ResNetCifar(20)}


@dataclass(frozen=True)
class Options(TurnOptions):
    """What to time."""

    networks: tuple[str, ...] = ()
    """Pruned networks as NAME=FILE.safetensors, NAME being convnet or resnet20."""
    skip_alexnet: bool = False
    """Leave AlexNet out."""
    data_dir: Path | None = None
    """Folder with skimcaffe-alexnet/; else SPOKESHAVE_DATA."""
    batch_sizes: tuple[int, ...] = (1, 16)
    """Images in a batch."""
    threads: tuple[int, ...] = (1,)
    """Threads to time with."""
    quick: bool = False
    """ConvNet only, few rounds."""


@dataclass(frozen=True)
class Setting:
    """One network at one batch size on some threads.

    Attributes:
        network: its name.
        batch: images.
        threads: of every contestant.
        seconds: contestant -> median seconds a call, by the clock that judges this number of threads.
        wall_s: contestant -> median wall seconds.
        fastest_s: contestant -> the fastest call, by the clock that judges.
        ratio: contestant -> (its time / ours, distance between the quartiles).
        graph: peer -> the form of the graph that it ran fastest.
        graphs_s: peer -> form -> seconds of a short trial, or why it does not run.
        best_dense: contestant that ignores zeros and is the fastest.
        problems: contestant -> why it did not take part.
    """

    network: str
    batch: int
    threads: int
    seconds: Mapping[str, float]
    wall_s: Mapping[str, float]
    fastest_s: Mapping[str, float]
    ratio: Mapping[str, tuple[float, float]]
    graph: Mapping[str, str]
    graphs_s: Mapping[str, Mapping[str, float | str]]
    best_dense: str | None
    problems: Mapping[str, str] = field(default_factory=dict)


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


def networks(options: Options) -> Iterator[tuple[str, nn.Module, tuple[int, ...]]]:
    """Name, network, shape of an image."""
    torch.manual_seed(options.seed)
    if not options.skip_alexnet and not options.quick:
        try:
            network = sparse_alexnet(PublishedWeights.L1, options.data_dir)
            yield ALEXNET, prune(network, nn.Linear, LINEAR_DENSITY), (3, 227, 227)
        except DataError as error:
            Console(stderr=True).print(f"{ALEXNET} is left out: {error}", style="yellow", soft_wrap=True)
    for given in options.networks:
        name, _, path = given.partition("=")
        if name not in BUILDERS or not path:
            raise SystemExit(f"--networks: expected NAME=FILE with NAME one of {', '.join(BUILDERS)}, got {given!r}")
        network = BUILDERS[name]()
        load_safetensors(network, path)
        yield name, network.eval(), (3, 32, 32)
    if not options.networks:
        for name in ("convnet",) if options.quick else BUILDERS:
            yield f"{name}-synthetic", prune(BUILDERS[name](), nn.Conv2d, RANDOM_DENSITY), (3, 32, 32)


def graphs(name: str, network: nn.Module, images: torch.Tensor, folder: Path) -> dict[str, Path]:
    """The network's ONNX graphs, by form."""
    if name != ALEXNET:
        return {"exported": export(network, folder / "network.onnx", images), "traced": trace(network, images, folder)}
    return {
        f"{groups.value}, {normalization.value}": save_alexnet(
            folder / f"{groups.name}-{normalization.name}.onnx", network, tuple(images.shape), groups, normalization
        )
        for groups in Groups
        for normalization in Normalization
    }


def trace(network: nn.Module, images: torch.Tensor, folder: Path) -> Path:
    """The graph from torch's older exporter, in opset 13: DeepSparse cannot read later ones."""
    path = folder / "traced.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (images,), str(path), dynamo=False, opset_version=13)
    return path


def try_graphs(contestant: Contestant, forms: Mapping[str, Path], example: Path) -> dict[str, float | str]:
    """Form -> seconds of a short trial by the contestant's clock, or why it does not run."""
    tried: dict[str, float | str] = {}
    for form, path in forms.items():
        problem = load(contestant, path, example)
        answer = {} if problem else contestant.ask(do="run", calls=5)
        clock = "cpu_s" if contestant.threads == 1 else "wall_s"
        tried[form] = problem or answer.get("error") or min(answer[clock])
    return tried


def fastest(tried: Mapping[str, float | str]) -> str | None:
    """The form with the smallest time; None where none runs.

    Example:
        >>> fastest({"split": 2.0, "group=2": 1.0, "other": "does not run"})
        'group=2'
    """
    known = {form: took for form, took in tried.items() if isinstance(took, float)}
    return min(known, key=lambda form: known[form], default=None)


@dataclass(frozen=True)
class Loaded:
    """Contestants that have a network.

    Attributes:
        ready: those that run it, by name.
        problems: the others -> why they do not.
        tried: peer -> form of the graph -> seconds of a short trial, or why it does not run.
        chosen: peer -> the form that it runs fastest.
    """

    ready: dict[str, Contestant] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    tried: dict[str, dict[str, float | str]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)


def load_crew(
    crew: list[Contestant], name: str, network: nn.Module, images: torch.Tensor, folder: Path, batch: int | None = None
) -> Loaded:
    """Load a network into contestants, in the form that each runs fastest.

    Args:
        crew: all of them.
        name: of the network.
        network: in eval mode.
        images: that all get.
        folder: for the files.
        batch: that ours plans for; a single image if none.
    """
    done = Loaded()
    models, example = write_models(network, images, folder, batch)
    forms = graphs(name, network, images, folder) if any(c.name in PEERS for c in crew) else {}
    for contestant in crew:
        who = contestant.name
        if who in SUFFIX:
            model = models[SUFFIX[who]]
        else:
            done.tried[who] = try_graphs(contestant, forms, example)
            form = fastest(done.tried[who])
            if form is None:
                done.problems[who] = "; ".join(f"{form}: {why}" for form, why in done.tried[who].items())
                continue
            done.chosen[who], model = form, forms[form]
        problem = load(contestant, model, example)
        if problem:
            done.problems[who] = problem
        else:
            done.ready[who] = contestant
    return done


def measure(
    options: Options, name: str, network: nn.Module, shape: tuple[int, ...], batch: int, crew: list[Contestant]
) -> Setting:
    """Time one setting."""
    threads = crew[0].threads
    images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(options.seed))
    with TemporaryDirectory() as folder:
        done = load_crew(crew, name, network, images, Path(folder))
        turns = take_turns(done.ready, options.rounds, options.turn_ms / 1e3, random.Random(options.seed), [])
    if OURS not in turns:
        raise SystemExit(f"{name}: the engine itself failed: {done.problems.get(OURS, 'while it was timed')}")
    ours = turns[OURS].seconds(threads)
    return Setting(
        network=name,
        batch=batch,
        threads=threads,
        seconds={who: median(turn.seconds(threads)) for who, turn in turns.items()},
        wall_s={who: median(turn.wall_s) for who, turn in turns.items()},
        fastest_s={who: turn.fastest(threads) for who, turn in turns.items()},
        ratio={who: ratio(turn.seconds(threads), ours) for who, turn in turns.items() if who != OURS},
        graph=done.chosen,
        graphs_s=done.tried,
        best_dense=best_of(turns, DENSE, threads),
        problems=done.problems,
    )


def bars(settings: list[Setting]) -> list[Bar]:
    """Every bar that these settings speak about."""
    found = []
    for one in settings:
        where = f"batch {one.batch}, {one.threads} thread{'s' * (one.threads > 1)}"
        if one.network == ALEXNET and one.batch in ALEXNET_AT:
            rivals = [one.ratio[peer][0] for peer in PEERS if peer in one.ratio]
            least = min(rivals) if len(rivals) == len(PEERS) else None
            found.append(Bar(f"{one.network}: times faster than the best peer, {where}", ALEXNET_AT[one.batch], least))
        elif one.network in BUILDERS and one.batch in TRAINED_AT:
            dense = one.ratio[one.best_dense][0] if one.best_dense else None
            found.append(Bar(f"{one.network}: times faster than the best dense, {where}", TRAINED_AT[one.batch], dense))
    return found


def table(settings: list[Setting]) -> Table:
    """Settings as rows."""
    shown = Table(
        title="how many times faster ours is: median ± quartile distance (of the fastest calls)",
        title_justify="left",
        box=None,
        padding=(0, 1),
    )
    names = list(dict.fromkeys(who for one in settings for who in one.ratio))
    for heading in ("network", "batch", "threads", "ours, ms", *names, "best graph of each peer"):
        shown.add_column(heading, justify="right" if heading in ("batch", "threads", "ours, ms") else "left")
    for one in settings:
        cells = [
            "{:.2f} ± {:.2f} ({:.2f})".format(*one.ratio[who], one.fastest_s[who] / one.fastest_s[OURS])
            if who in one.ratio
            else "-"
            for who in names
        ]
        forms = "; ".join(f"{who}: {form}" for who, form in one.graph.items())
        shown.add_row(
            one.network, str(one.batch), str(one.threads), f"{1e3 * one.seconds[OURS]:.3f}", *cells, forms
        )  # fmt: skip
    return shown


def write(options: Options, settings: list[Setting], versions: Mapping[str, str], took_s: float) -> None:
    """A row of the ledger for each network."""
    assert options.ledger is not None
    for name in dict.fromkeys(one.network for one in settings):
        some = [one for one in settings if one.network == name]
        numbers: dict[str, Any] = {
            "settings": [asdict(one) for one in some],
            "bars": [asdict(bar) | {"verdict": bar.verdict} for bar in bars(some)],
            "contestants": versions,
        }
        config = {"batch_sizes": options.batch_sizes, "threads": options.threads, "rounds": options.rounds}
        write_row(
            "benchmarks", f"sparse-{name}", config, numbers, seeds=[options.seed], wall_s=took_s,
            directory=options.ledger, command=shlex.join(["python", *sys.argv]),
        )  # fmt: skip


def main(options: Options) -> None:
    """Time every network and print tables."""
    began = time.perf_counter()
    if options.quick:
        options = replace(options, rounds=3, turn_ms=5.0)
    torch.set_num_threads(1)
    console = Console(width=180 if not sys.stdout.isatty() else None)
    crews = {threads: start(threads, options.peers, options.only_contestants) for threads in options.threads}
    versions = {member.name: member.version for crew in crews.values() for member in crew}
    console.print("contestants: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    settings: list[Setting] = []
    try:
        for name, network, shape in networks(options):
            for batch in options.batch_sizes:
                for crew in crews.values():
                    one = measure(options, name, network, shape, batch, crew)
                    settings.append(one)
                    said = ", ".join(f"{who} {1e3 * took:.3f}" for who, took in one.seconds.items())
                    console.print(f"{name} batch {batch} threads {one.threads}: ms {said}")
                    for who, forms in one.graphs_s.items():
                        for form, took in forms.items():
                            said = f"{1e3 * took:.3f} ms" if isinstance(took, float) else took
                            console.print(f"  {who}, {form}: {said}", markup=False)
                    for who, problem in one.problems.items():
                        if who not in one.graphs_s:
                            console.print(f"  {who} left out: {problem}", markup=False)
    finally:
        for member in (member for crew in crews.values() for member in crew):
            member.close()
    console.print(table(settings))
    for bar in bars(settings):
        got = "-" if bar.got is None else f"{bar.got:.2f}"
        console.print(f"{bar.what}: at least {bar.wanted:.2f}, measured {got}: {bar.verdict}")
    if options.ledger is not None:
        write(options, settings, versions, time.perf_counter() - began)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
