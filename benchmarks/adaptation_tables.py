"""Tables of domain adaptation for `results_table.py`: digits by arm, Office-Caltech10 by network, fixed features."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from spokeshave.ledger import Row, read_rows

NOTHING = "*Not measured yet.*"
DOMAINS = ("amazon", "caltech", "dslr", "webcam")
DIGITS = ("mnist-usps", "usps-mnist", "mnist-mnistm")
_SHOWN = (("source-only", "source only"), ("full", "full"), ("target", "target's labels"))
NETWORKS = ("compact", "googlenet", "squeezenet", "alexnet", "lenet", "small")


def digits(directory: Path) -> str:
    """Accuracy on the target, a row of the ledger a line, an arm a column."""
    rows = [row for row in _rows(directory) if row.row in DIGITS]
    if not rows:
        return NOTHING
    arms = list(dict.fromkeys(name for row in rows for name in row.numbers["arms"]))
    lines = _head(["row", *arms])
    for row in sorted(rows, key=lambda one: DIGITS.index(one.row)):
        found = row.numbers["arms"]
        cells = [_bold(percent(_right(found[name])), name == "full") if name in found else "" for name in arms]
        lines.append(_line([f"{row.row} ({len(row.seeds)} seeds)", *cells]))
    return "\n".join(lines)


def networks(directory: Path) -> str:
    """Size and accuracy of the networks, means over tasks of Office-Caltech10."""
    rows = _office(directory)
    if not rows:
        return NOTHING
    lines = _head(["network", "parameters", "MFLOPs", "source only", "full", "better on"])
    for network in _networks(rows):
        own = [row for row in rows if row.config["network"] == network]
        size = own[0].numbers["layers"]["Network"][0]
        parameters, flops = f"{size['parameters']:,}", f"{size['flops'] / 1e6:.0f}"
        lines.append(_line([network, parameters, flops, *_means([row.numbers["arms"] for row in own])]))
    return "\n".join(lines)


def office(directory: Path) -> str:
    """Accuracy of the last stage adapted, by task and network: source alone, all terms, target labels."""
    rows = _office(directory)
    if not rows:
        return NOTHING
    networks = _networks(rows)
    found = {(_task(row), row.config["network"]): row.numbers["arms"] for row in rows}
    tasks = sorted({task for task, _ in found})
    labelled = {network for (_, network), arms in found.items() if "target" in arms}
    shown = {network: _SHOWN[: 3 if network in labelled else 2] for network in networks}
    lines = _head(["task", *(f"{network}: {', '.join(word for _, word in shown[network])}" for network in networks)])
    for task in tasks:
        cells = []
        for network in networks:
            arms = found.get((task, network), {})
            cells.append(", ".join(percent(_right(arms[name])) for name, _ in shown[network] if name in arms))
        lines.append(_line([task, *cells]))
    by_network = [_means([arms for (_, name), arms in found.items() if name == network]) for network in networks]
    return "\n".join([*lines, _line(["**mean**", *(", ".join(means[:2]) for means in by_network)])])


def forms(directory: Path) -> str:
    """Accuracy of networks adapted after a compression, and without, by task and network."""
    rows = [row for row in _rows(directory) if _task(row).split("-")[0] in DOMAINS]
    compressed = {(_task(row), row.config["network"]) for row in rows if row.config["form"] != "dense"}
    rows = [row for row in rows if (_task(row), row.config["network"]) in compressed]
    if not rows:
        return NOTHING
    lines = _head(["task", "network", "form", "adapted", "epochs more", "parameters", "MFLOPs", "source only", "full"])
    for row in sorted(rows, key=lambda one: (_task(one), one.config["form"] != "dense", one.row)):
        last, more = row.numbers["layers"]["Network"][-1], row.config.get("recovery")
        part = "last stage" if row.config["frozen"] else "all layers"
        about = [_task(row), row.config["network"], row.config["form"], part, str(more["epochs"] if more else 0)]
        size = [f"{last['parameters']:,}", f"{last['flops'] / 1e6:.0f}"]
        cells = [percent(_right(row.numbers["arms"][name])) for name in ("source-only", "full")]
        lines.append(_line([*about, *size, *cells]))
    return "\n".join(lines)


def conv_m(directory: Path) -> str:
    """Kinds of branches at equal parameters."""
    found = [row.numbers for row in read_rows("benchmarks", directory) if row.row == "conv-m-ablation"]
    lines = [
        _line([name, f"{one['parameters']:,}", percent(one["test"])])
        for numbers in found
        for name, one in numbers.items()
    ]
    return "\n".join([*_head(["branches", "parameters", "accuracy"]), *lines]) if lines else NOTHING


def speed(directory: Path) -> str:
    """Networks timed in turns, beside the compact one."""
    rows = [row for row in read_rows("benchmarks", directory) if row.row == "compact-speed"]
    lines = _head(["network", "pixels, classes", "parameters", "MFLOPs", "batch", "threads", "times as long"])
    for found in (one for row in rows for one in row.numbers["rows"]):
        about = [found["network"], f"{found['size']}, {found['classes']}", f"{found['parameters']:,}"]
        about += [f"{found['flops'] / 1e6:.0f}", str(found["batch_size"]), str(found["threads"])]
        lines.append(_line([*about, f"{found['ratio']:.2f} ± {found['ratio_spread']:.2f}"]))
    return "\n".join(lines) if rows else NOTHING


def fixed_features(directory: Path) -> str:
    """Every way on fixed features, by task."""
    parts = []
    for row in read_rows("benchmarks", directory):
        for kind, tasks in row.numbers.items() if row.row == "fixed-features" else ():
            ways = list(next(iter(tasks.values())))
            lines = _head([f"{kind}: task", *ways])
            lines += [_line([task, *(percent(found[way]) for way in ways)]) for task, found in tasks.items()]
            means = [f"**{100 * mean(mean(found[way]) for found in tasks.values()):.1f}**" for way in ways]
            parts.append("\n".join([*lines, _line(["**mean**", *means])]))
    return "\n\n".join(parts) or NOTHING


def percent(values: Sequence[float]) -> str:
    """Mean and deviation over seeds, in percent.

    Example:
        >>> percent([0.5]), percent([0.5, 0.6])
        ('50.0', '55.0 ± 7.1')
    """
    return f"{100 * mean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def _rows(directory: Path) -> Sequence[Row]:
    """Rows that have both the arm that adapts and the one that does not."""
    rows = read_rows("adaptation", directory) if (directory / "adaptation").is_dir() else ()
    return [row for row in rows if {"source-only", "full"} <= set(row.numbers["arms"])]


def _office(directory: Path) -> Sequence[Row]:
    """Rows of the last stage alone of networks as they were pretrained."""
    rows = [row for row in _rows(directory) if row.config["frozen"] and row.config["form"] == "dense"]
    return [row for row in rows if not row.config.get("recovery")]


def _networks(rows: Sequence[Row]) -> list[str]:
    return sorted({row.config["network"] for row in rows}, key=NETWORKS.index)


def _means(tasks: Sequence[dict]) -> list[str]:
    """Mean accuracy of the source alone and of all terms, over tasks, and on how many the latter is better."""
    alone, full = ([mean(_right(arms[name])) for arms in tasks] for name in ("source-only", "full"))
    better = sum(after > before for before, after in zip(alone, full, strict=True))
    return [f"{100 * mean(alone):.1f}", f"**{100 * mean(full):.1f}**", f"{better} of {len(tasks)}"]


def _task(row: Row) -> str:
    return "-".join(row.row.split("-")[:2])


def _right(arm: dict) -> list[float]:
    return [1 - error for error in arm["errors"]]


def _bold(text: str, yes: bool) -> str:
    return f"**{text}**" if yes else text


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
