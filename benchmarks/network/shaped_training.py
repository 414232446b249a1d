"""DDP training over a slow network, the gradients as float32, bfloat16 and ternary: seconds and bytes of a step.

    python benchmarks/network/shaped_training.py                       # as root: 2 ranks, 100mbit and 1gbit
    python benchmarks/network/shaped_training.py --workers 2 4 --rates 100mbit --networks mlp alexnet-like
    python benchmarks/network/shaped_training.py --quick               # a tiny network, half a minute

Every rank is a process in a network namespace whose port is limited to the rate (network_namespaces.py: what that
needs, and its traps). Contestants train networks of their own, all alike, in the same processes, and take turns in a
new random order every round; ratios are taken within a round; reported are medians and quartile distances over rounds.
Bytes are the interface's counters. Without root or iproute2 the ranks share the loopback, unlimited,
and the bytes are what the formulas say.
"""

import random
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import tyro
from exchange_contestants import BFLOAT16, CONTESTANTS, PLAIN
from network_namespaces import (
    NetworkRefused,
    Traffic,
    bits_per_second,
    burst_bytes,
    congestion_control,
    loopback,
    shaped_network,
    why_not,
)
from rank_crew import PORT, Crew, RankFailed
from rich.console import Console
from rich.table import Table
from trained_networks import NETWORKS

from spokeshave.ledger import write_row
from spokeshave.timing import median_and_spread

UNLIMITED = "none"


@dataclass(frozen=True)
class Options:
    """What to train."""

    networks: tuple[str, ...] = ("mlp", "alexnet-like")
    """Of: mlp (1.8 million parameters), mlp-large (5.6), lenet (0.4), alexnet-like (5.7), tiny (0.3)."""
    workers: tuple[int, ...] = (2,)
    """Ranks, each on a host of its own."""
    rates: tuple[str, ...] = ("100mbit", "1gbit")
    """Of a host's port in each direction, such as 100mbit or 1gbit; none for no limit."""
    contestants: tuple[str, ...] = ()
    """Whom to compare; all if none is given."""
    batch: int = 8
    """Images of a rank in a step."""
    steps: int = 4
    """Timed in a turn, after one that is not."""
    rounds: int = 5
    """Turns of each contestant in each setting."""
    pin: bool = False
    """Keep each rank on one core, in turns."""
    seed: int = 0
    """Of weights, images and the order of turns."""
    timeout_s: float = 600.0
    """For a turn, and for starting the ranks."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row a network there."""
    quick: bool = False
    """tiny at 100mbit, one round."""


@dataclass(frozen=True)
class Outcome:
    """What one contestant did in one setting.

    Attributes:
        step_s: median over rounds, and the distance between the quartiles, of a step's seconds.
        fastest_s: seconds of a step in the fastest turn, nearest to what an undisturbed machine would show.
        faster_than: contestant -> how many times longer its steps take: median and quartile distance.
        sent_bytes: that a rank sends in a step, by the interface's counter, headers included; None over loopback.
        received_bytes: likewise.
        payload_bytes: of those sent, without headers.
        formula_bytes: that it has to send, without headers.
        counted_bytes: that the hook says it sends; None for those that do not count.
        said: by the hook: what its trial found.
    """

    step_s: tuple[float, float]
    fastest_s: float
    faster_than: Mapping[str, tuple[float, float]]
    sent_bytes: float | None
    received_bytes: float | None
    payload_bytes: float | None
    formula_bytes: float
    counted_bytes: float | None
    said: str | None


@dataclass(frozen=True)
class Setting:
    """One network trained by some ranks over ports of one rate.

    Attributes:
        network: its name.
        parameters: of it.
        workers: ranks.
        rate: of the ports; "none", or "loopback" where there is no network.
        burst_bytes: that a port lets through at full speed; None without a limit.
        outcomes: by contestant.
    """

    network: str
    parameters: int
    workers: int
    rate: str
    burst_bytes: int | None
    outcomes: Mapping[str, Outcome]


def check(options: Options) -> Options:
    """Refuse what cannot be trained, before anything is started.

    Raises:
        SystemExit: with what is wrong.
    """
    if options.quick:
        options = replace(options, networks=("tiny",), rates=("100mbit",), rounds=1)
    for what, given, known in (
        ("--networks", options.networks, NETWORKS),
        ("--contestants", options.contestants, CONTESTANTS),
    ):
        for name in given:
            if name not in known:
                raise SystemExit(f"{what}: expected some of {', '.join(known)}, got {name!r}")
    for rate in options.rates:
        try:
            bits_per_second(rate if rate != UNLIMITED else "1gbit")
        except ValueError as error:
            raise SystemExit(f"--rates: {error}, nor {UNLIMITED!r}") from error
    for what, number, least in (
        ("--workers", min(options.workers, default=0), 2),
        ("--batch", options.batch, 1),
        ("--steps", options.steps, 1),
        ("--rounds", options.rounds, 1),
    ):
        if number < least:
            raise SystemExit(f"{what}: expected at least {least}, got {number}")
    contestants = tuple(name for name in CONTESTANTS if name in (options.contestants or CONTESTANTS))
    return replace(options, contestants=contestants)


@contextmanager
def started(options: Options, network: str, workers: int, rate: str | None) -> Iterator[Crew]:
    """The ranks of a setting, on a network of their own; `rate` None means loopback."""
    start = {
        "network": network, "batch": options.batch, "seed": options.seed, "contestants": options.contestants,
    }  # fmt: skip
    if rate is None:
        with Crew(loopback(workers), start, pin=options.pin, timeout_s=options.timeout_s, port=_free_port()) as crew:
            yield crew
    else:
        with (
            shaped_network(workers, None if rate == UNLIMITED else rate) as hosts,
            Crew(hosts, start, pin=options.pin, timeout_s=options.timeout_s, port=PORT) as crew,
        ):
            yield crew


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def measure(options: Options, network: str, workers: int, rate: str | None, crew: Crew) -> Setting:
    """Let the contestants take turns."""
    order = random.Random(options.seed)
    seconds: dict[str, list[float]] = {name: [] for name in options.contestants}
    traffic: dict[str, list[Traffic]] = {name: [] for name in options.contestants}
    counted: dict[str, list[float]] = {name: [] for name in options.contestants}
    said: dict[str, str | None] = {}
    for name in options.contestants:
        crew.ask(do="steps", contestant=name, count=CONTESTANTS[name].first_steps)
    steps = options.steps + 1
    for _ in range(options.rounds):
        names = list(options.contestants)
        order.shuffle(names)
        for name in names:
            before = crew.traffic()
            answers = crew.ask(do="steps", contestant=name, count=steps)
            after = crew.traffic()
            seconds[name].append(max(mean(answer["seconds"][1:]) for answer in answers))
            counted[name] += [answer["counted_bytes"] for answer in answers if answer["counted_bytes"] is not None]
            said[name] = answers[0]["said"]
            traffic[name] += [late - early for early, late in zip(before, after, strict=True)]
    for name in options.contestants:
        if len({answer["digest"] for answer in crew.ask(do="digest", contestant=name)}) != 1:
            raise RankFailed(f"{name}: the ranks' weights differ after training, so their gradients did")
    outcomes = {
        name: Outcome(
            step_s=median_and_spread(seconds[name]),
            fastest_s=min(seconds[name]),
            faster_than={
                other: median_and_spread([a / b for a, b in zip(seconds[other], seconds[name], strict=True)])
                for other in (PLAIN, BFLOAT16)
                if other in seconds and other != name
            },
            sent_bytes=None if rate is None else mean(one.sent_bytes for one in traffic[name]) / steps,
            received_bytes=None if rate is None else mean(one.received_bytes for one in traffic[name]) / steps,
            payload_bytes=None if rate is None else mean(one.sent_payload for one in traffic[name]) / steps,
            formula_bytes=CONTESTANTS[name].sent_bytes(crew.sizes, workers),
            counted_bytes=mean(counted[name]) / steps if counted[name] else None,
            said=said[name],
        )
        for name in options.contestants
    }
    limited = rate is not None and rate != UNLIMITED
    return Setting(
        network=network,
        parameters=sum(crew.sizes),
        workers=workers,
        rate="loopback" if rate is None else rate,
        burst_bytes=burst_bytes(rate) if limited else None,
        outcomes=outcomes,
    )


def table(setting: Setting) -> Table:
    """A setting's contestants as rows."""
    rate = setting.rate if setting.rate not in (UNLIMITED, "loopback") else f"{setting.rate}, no limit"
    shown = Table(
        title=f"{setting.network}, {setting.parameters / 1e6:.2f} million parameters, {setting.workers} ranks, {rate}",
        title_justify="left",
        box=None,
        padding=(0, 1),
    )
    for heading in (
        "gradients",
        "ms a step",
        "fastest",
        f"x {PLAIN}",
        f"x {BFLOAT16}",
        "MB on the wire",
        "payload",
        "formula",
        "payload/formula",
        "payload/counted",
    ):
        shown.add_column(heading, justify="left" if heading == "gradients" else "right")
    for name, one in setting.outcomes.items():
        ratios = [
            "{:.2f} ± {:.2f}".format(*one.faster_than[other]) if other in one.faster_than else "-"
            for other in (PLAIN, BFLOAT16)
        ]
        sent = "-" if one.sent_bytes is None else f"{one.sent_bytes / 1e6:.3f}"
        payload = "-" if one.payload_bytes is None else f"{one.payload_bytes / 1e6:.3f}"
        against = "-" if one.payload_bytes is None else f"{one.payload_bytes / one.formula_bytes:.3f}"
        counted = "-"
        if one.payload_bytes is not None and one.counted_bytes:
            counted = f"{one.payload_bytes / one.counted_bytes:.3f}"
        step = f"{1e3 * one.step_s[0]:.1f} ± {1e3 * one.step_s[1]:.1f}"
        shown.add_row(
            name,
            step,
            f"{1e3 * one.fastest_s:.1f}",
            *ratios,
            sent,
            payload,
            f"{one.formula_bytes / 1e6:.3f}",
            against,
            counted,
        )
    return shown


def write(options: Options, settings: Sequence[Setting], took_s: float) -> None:
    """A row of the ledger for each network."""
    assert options.ledger is not None
    config = {
        "batch": options.batch, "steps": options.steps, "rounds": options.rounds, "pin": options.pin,
        "threads": 1, "congestion_control": congestion_control(),
    }  # fmt: skip
    for network in dict.fromkeys(one.network for one in settings):
        numbers: dict[str, Any] = {"settings": [asdict(one) for one in settings if one.network == network]}
        write_row(
            "benchmarks", f"network-{network}", config, numbers, seeds=[options.seed], wall_s=took_s,
            directory=options.ledger, command=shlex.join(["python", *sys.argv]),
        )  # fmt: skip


def main(options: Options) -> None:
    """Train in every setting and print tables."""
    began = time.perf_counter()
    options = check(options)
    console = Console(width=150 if not sys.stdout.isatty() else None)
    refusal = why_not()
    rates: Sequence[str | None] = options.rates
    if refusal:
        console.print(f"no shaped network: {refusal}; over loopback, without a limit", style="yellow", markup=False)
        rates = [None]
    settings = []
    try:
        for network in options.networks:
            for workers in options.workers:
                for rate in rates:
                    with started(options, network, workers, rate) as crew:
                        settings.append(measure(options, network, workers, rate, crew))
                    console.print(table(settings[-1]))
                    for name, one in settings[-1].outcomes.items():
                        if one.said:
                            console.print(f"  {name}: {one.said}", markup=False)
    except (RankFailed, NetworkRefused) as error:
        raise SystemExit(str(error)) from error
    if options.ledger is not None:
        write(options, settings, time.perf_counter() - began)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
