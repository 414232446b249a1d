"""Whole factorized networks as generated code, beside the dense network in every engine at hand.

    python benchmarks/peer_environments.py --folder build/peers         # once; without it: ours and torch only
    python benchmarks/low_rank_networks.py --peers build/peers
    python benchmarks/low_rank_networks.py --rows results/force/convnet.json

ResNet-20 has the ranks that its authors' network has after force regularization (`recipes/force.py`); a row of the
ledger adds the ranks that were trained here, with and without force. Weights are random: time does not depend on them.
Torch, OpenVINO, ONNX Runtime and DeepSparse run the dense network, and the factorized one too. Everything takes turns;
`contestants.py` says which clock counts.
"""

import json
import random
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import tyro
from contestants import DENSE, OURS, Contestant, TurnOptions, best_of, ratio, start, take_turns
from rich.console import Console
from rich.table import Table
from sparse_networks import BUILDERS, load_crew
from torch import nn

from spokeshave.ledger import write_row
from spokeshave.recipes.force import PAPER
from spokeshave.rewrites.low_rank import low_rank

SHAPE = (3, 32, 32)
RUNNERS = (*DENSE, "deepsparse")
"""Who runs the dense network, and the factorized one beside ours."""


@dataclass(frozen=True)
class Options(TurnOptions):
    """What to time."""

    rows: tuple[Path, ...] = ()
    """Rows of the force recipe in the ledger, whose ranks are timed too."""
    batch_sizes: tuple[int, ...] = (16,)
    """Images in a batch."""
    threads: int = 1
    """Threads to time with."""


@dataclass(frozen=True)
class Case:
    """A network and its ranks.

    Attributes:
        name: of the case.
        network: makes it.
        ranks: layer -> rank, below the full one.
    """

    name: str
    network: Callable[[], nn.Module]
    ranks: Mapping[str, int]


@dataclass(frozen=True)
class Setting:
    """One case at one batch size.

    Attributes:
        case: its name.
        batch: images.
        threads: of every contestant.
        ranks: layer -> rank.
        seconds: contestant -> median seconds a call; "NAME, factorized" for the others' factorized networks.
        best_dense: who runs the dense network fastest.
        best_factorized: who but ours runs the factorized one fastest.
        ratio: contestant -> (its time / ours, distance between the quartiles).
        problems: contestant -> why it did not take part.
    """

    case: str
    batch: int
    threads: int
    ranks: Mapping[str, int]
    seconds: Mapping[str, float]
    best_dense: str
    best_factorized: str | None
    ratio: Mapping[str, tuple[float, float]]
    problems: Mapping[str, str]


def cases(rows: tuple[Path, ...]) -> Iterator[Case]:
    """The published ranks, then those of the rows."""
    network = BUILDERS["resnet20"]()
    names = [
        name for name, module in network.named_modules() if isinstance(module, nn.Conv2d) and "downsampling" not in name
    ]
    published = dict(zip(names, PAPER["resnet20"]["ranks"]["force"], strict=True))
    del published[names[0]]  # the first layer is not forced
    yield Case("ResNet-20, published ranks", BUILDERS["resnet20"], below_full(network, published))
    for path in rows:
        row = json.loads(path.read_text())
        (layers,) = row["numbers"]["layers"].values()
        network = BUILDERS[row["row"]]()
        for arm in ("plain", "force"):
            ranks = below_full(network, {layer["layer"]: layer[f"{arm}-low-rank"] for layer in layers})
            yield Case(f"{row['row']}, trained here, {arm}", BUILDERS[row["row"]], ranks)


def below_full(network: nn.Module, ranks: Mapping[str, int]) -> dict[str, int]:
    """Ranks below the number of filters."""
    return {
        name: rank for name, rank in ranks.items() if rank < len(network.get_submodule(name).get_parameter("weight"))
    }


def _factorized(who: str) -> str:
    return who if who == OURS else f"{who}, factorized"


def measure(options: Options, case: Case, batch: int, crews: tuple[list[Contestant], list[Contestant]]) -> Setting:
    """Time one setting."""
    torch.manual_seed(options.seed)
    images = torch.randn(batch, *SHAPE)
    dense = case.network().eval()
    factorized, _ = low_rank(dense, images, ranks=dict(case.ranks))
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        whole = load_crew(crews[0], "dense", dense, images, Path(first), batch)
        split = load_crew(crews[1], "factorized", factorized.eval(), images, Path(second), batch)
        others = {_factorized(who): one for who, one in split.ready.items()}
        problems = whole.problems | {_factorized(who): why for who, why in split.problems.items()}
        order = random.Random(options.seed)
        turns = take_turns(whole.ready | others, options.rounds, options.turn_ms / 1e3, order, [])
    if OURS not in turns:
        raise SystemExit(f"{case.name}: the engine itself failed: {problems.get(OURS, 'while it was timed')}")
    best_dense = best_of(turns, list(whole.ready), options.threads)
    if best_dense is None:
        raise SystemExit(f"{case.name}: nobody ran the dense network: {problems}")
    ours = turns[OURS].seconds(options.threads)
    return Setting(
        case=case.name,
        batch=batch,
        threads=options.threads,
        ranks=case.ranks,
        seconds={who: median(turn.seconds(options.threads)) for who, turn in turns.items()},
        best_dense=best_dense,
        best_factorized=best_of(turns, [who for who in others if who != OURS], options.threads),
        ratio={who: ratio(turn.seconds(options.threads), ours) for who, turn in turns.items() if who != OURS},
        problems=problems,
    )


def table(settings: list[Setting]) -> Table:
    """Settings as rows."""
    shown = Table(title="factorized, as generated code", title_justify="left", box=None, padding=(0, 1))
    for heading in (
        "network",
        "batch",
        "ours, ms",
        "best dense",
        "ours faster",
        "best other, factorized",
        "ours faster",
    ):
        shown.add_column(heading)
    for one in settings:
        cells = [one.case, str(one.batch), f"{1e3 * one.seconds[OURS]:.2f}"]
        for who in (one.best_dense, one.best_factorized):
            cells += (
                [f"{who}: {1e3 * one.seconds[who]:.2f} ms", "{:.2f} ± {:.2f}x".format(*one.ratio[who])] if who else []
            )
        shown.add_row(*cells)
    return shown


def main(options: Options) -> None:
    """Time every case and print a table."""
    began = time.perf_counter()
    torch.set_num_threads(options.threads)
    console = Console(width=170 if not sys.stdout.isatty() else None)
    everybody = [start(options.threads, options.peers, options.only_contestants) for _ in range(2)]
    crews = (
        [one for one in everybody[0] if one.name in RUNNERS],
        [one for one in everybody[1] if one.name in (OURS, *RUNNERS)],
    )
    settings: list[Setting] = []
    try:
        for case in cases(options.rows):
            for batch in options.batch_sizes:
                settings.append(measure(options, case, batch, crews))
                said = ", ".join(f"{who} {1e3 * took:.2f}" for who, took in settings[-1].seconds.items())
                console.print(f"{case.name}, batch {batch}: ms {said}", soft_wrap=True)
                for who, problem in settings[-1].problems.items():
                    console.print(f"  {who} left out: {problem}", markup=False)
    finally:
        for member in (member for crew in everybody for member in crew):
            member.close()
    console.print(table(settings))
    if options.ledger is not None:
        write_row(
            "benchmarks", "factorized-networks",
            {"batch_sizes": options.batch_sizes, "threads": options.threads, "rounds": options.rounds},
            {"settings": [asdict(one) for one in settings]},
            seeds=[options.seed], wall_s=time.perf_counter() - began, directory=options.ledger,
            command=shlex.join(["python", *sys.argv]),
        )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
