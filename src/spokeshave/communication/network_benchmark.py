"""Benchmark of a network between workers: a model's step profiled here, predicted for every way to exchange gradients.

What is measured: forward and backward pass, the codec, and, under `torchrun`, the links. What is predicted: the rest,
by `performance_model`. Throughput that was measured elsewhere may be set beside it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spokeshave.communication.link_probe import LinkProbe
from spokeshave.communication.link_units import bandwidth_words
from spokeshave.communication.performance_model import (
    Cluster,
    Prediction,
    StepProfile,
    at_workers,
    best_ternary,
    break_even_bit_per_s,
    predict,
)
from spokeshave.communication.wire_bytes import Exchange
from spokeshave.errors import DataError

SCHEMA = 1
_NOTICEABLE = 1.02
"""Gains below it are none."""


@dataclass(frozen=True)
class MeasuredThroughput:
    """Images a second of all workers together, as they were measured.

    Attributes:
        exchange: of the gradients.
        workers: N.
        bit_per_s: of the link.
        images_per_s: positive.
    """

    exchange: Exchange
    workers: int
    bit_per_s: float
    images_per_s: float


@dataclass(frozen=True)
class NetworkBenchmark:
    """All that is known of a model's training on a cluster.

    Attributes:
        model: its name.
        input_shape: of one image.
        profile: of its step on this machine.
        cluster: layout, link, codec.
        device: that the step was profiled on.
        probe: of the links; None where they were given.
        measured: throughput that was measured, of this model and batch.
        machine: that the step was profiled on.
        versions: package -> version.
        command: that repeats it.
        wall_s: seconds it took.
    """

    model: str
    input_shape: tuple[int, ...]
    profile: StepProfile
    cluster: Cluster
    device: str
    probe: LinkProbe | None
    measured: tuple[MeasuredThroughput, ...]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    wall_s: float

    @property
    def workers(self) -> int:
        """N."""
        return self.cluster.layout.workers

    def predictions(self, workers: int | None = None) -> dict[Exchange, Prediction]:
        """A step with every exchange.

        Args:
            workers: more or fewer than the cluster has; none for those.
        """
        cluster = self.cluster if workers is None else at_workers(self.cluster, workers)
        return {exchange: predict(exchange, self.profile, cluster) for exchange in Exchange}

    def best(self) -> Prediction:
        """The ternary exchange with the shortest step."""
        return best_ternary(self.profile, self.cluster)

    def break_even(self, exchange: Exchange, against: Exchange) -> float | None:
        """Bandwidth below which one exchange is faster than another: see `break_even_bit_per_s`."""
        return break_even_bit_per_s(exchange, against, self.profile, self.cluster)

    def pays_below(self, against: Exchange) -> float | None:
        """Bandwidth below which some ternary exchange is faster than floats or bfloat16; None where none ever is.

        Args:
            against: FLOAT32 or BFLOAT16.
        """
        found = [rate for each in Exchange if each.ternary and (rate := self.break_even(each, against)) is not None]
        return max(found, default=None)

    def gain(self, exchange: Exchange, against: Exchange) -> float:
        """Throughput of one exchange over that of another."""
        steps = self.predictions()
        return steps[against].step_s / steps[exchange].step_s

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, numbers and strings, ready for JSON; an infinite break-even is None."""
        steps = self.predictions()
        rows = {}
        for exchange, step in steps.items():
            rows[exchange.value] = asdict(replace(step)) | {
                "exchange": exchange.value,
                "over_fp32": steps[Exchange.FLOAT32].step_s / step.step_s,
                "over_bf16": steps[Exchange.BFLOAT16].step_s / step.step_s,
            }
            if exchange.ternary:
                for against in (Exchange.FLOAT32, Exchange.BFLOAT16):
                    rate = self.break_even(exchange, against)
                    rows[exchange.value][f"faster_than_{against.value}"] = (
                        "never" if rate is None else "always" if math.isinf(rate) else "below"
                    )
                    rows[exchange.value][f"below_{against.value}_bit_per_s"] = (
                        None if rate is None or math.isinf(rate) else rate
                    )
        return {
            "schema": SCHEMA,
            "model": self.model,
            "input": list(self.input_shape),
            "device": self.device,
            "profile": asdict(self.profile),
            "layout": asdict(self.cluster.layout),
            "link": asdict(self.cluster.link),
            "order": self.cluster.order.value,
            "pack": self.cluster.pack.value,
            "codec": asdict(self.cluster.codec),
            "probe": _plain_probe(self.probe) if self.probe else None,
            "exchanges": rows,
            "verdict": verdict(self),
            "measured": [asdict(row) | {"exchange": row.exchange.value} for row in self.measured],
            "command": self.command,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "wall_s": self.wall_s,
        }


def _plain_probe(probe: LinkProbe) -> dict[str, Any]:
    times = [asdict(each) | {"collective": each.collective.value} for each in probe.times]
    return {"backend": probe.backend, "misfit": probe.misfit, "times": times}


def verdict(bench: NetworkBenchmark) -> str:
    """Say whether ternary gradients pay off, by how much, and below which bandwidth.

    Args:
        bench: of a model.
    """
    if bench.workers == 1:
        return "One worker exchanges nothing, so ternary gradients do not pay off here: give more workers."
    best = bench.best()
    floats = bench.gain(best.exchange, Exchange.FLOAT32)
    halves = bench.gain(best.exchange, Exchange.BFLOAT16)
    where = f"with {bench.workers} workers at {bandwidth_words(bench.cluster.link.bit_per_s)}"
    both = f"{_times(floats)} over fp32, {_times(halves)} over bf16"
    if min(floats, halves) > _NOTICEABLE:
        return f"Ternary gradients pay off here: {both} ({best.exchange.value}, {where}). {_bounds(bench)}"
    if floats > _NOTICEABLE:
        return (
            f"Ternary gradients beat fp32 here, but not bf16: {both} ({best.exchange.value}, {where}); "
            f"train with bf16 gradients. {_bounds(bench)}"
        )
    return f"Ternary gradients do not pay off here: {both} ({best.exchange.value}, {where}). {_bounds(bench)}"


def _bounds(bench: NetworkBenchmark) -> str:
    said = []
    for against in (Exchange.FLOAT32, Exchange.BFLOAT16):
        rate = bench.pays_below(against)
        if rate is None:
            said.append(f"never faster than {against.value}")
        elif math.isinf(rate):
            said.append(f"faster than {against.value} at any bandwidth")
        else:
            said.append(f"faster than {against.value} below {bandwidth_words(rate)}")
    return f"They are {' and '.join(said)}."


def _times(ratio: float) -> str:
    return f"{ratio:.3g}x" if ratio < 1000 else f"{ratio:.0f}x"


def read_measured(path: Path) -> tuple[MeasuredThroughput, ...]:
    """Read rows of measured throughput: a JSON list, or an object with one under "measured".

    Args:
        path: of the file; rows have exchange (fp32, bf16, allgather, alltoall, lanes), workers, bit_per_s and
            images_per_s.

    Raises:
        DataError: where the file or a row is not of that form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a JSON file with measured throughput: {error}") from error
    rows = content.get("measured") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DataError(f'{path}: expected a list of rows, or an object with one under "measured"')
    return tuple(_measured(row, f"{path}: row {number}") for number, row in enumerate(rows))


def _measured(row: Any, where: str) -> MeasuredThroughput:
    known = {each.value: each for each in Exchange}
    if not isinstance(row, dict) or row.get("exchange") not in known:
        raise DataError(f"{where}: expected an exchange of {', '.join(known)}, got {row!r}")
    workers, bit_per_s, images_per_s = (
        _positive(row.get(name), f"{where}: {name}") for name in ("workers", "bit_per_s", "images_per_s")
    )
    if not workers.is_integer():
        raise DataError(f"{where}: workers: expected a whole number, got {workers!r}")
    return MeasuredThroughput(known[row["exchange"]], int(workers), bit_per_s, images_per_s)


def _positive(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise DataError(f"{where}: expected a number above 0, got {value!r}")
    return float(value)
