"""Writes the tables of results in README.md and docs/ from the ledger, so that no number is typed by hand.

    python benchmarks/results_table.py            # rewrite them
    python benchmarks/results_table.py --check    # exit 1 where they are not what the ledger says

Errors are of the test split, of physically shrunk networks; times are medians of pairs timed in turns in one process.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean

import adaptation_tables

from spokeshave.files import atomic_write
from spokeshave.ledger import Row, read_rows
from spokeshave.recipes.truenorth_arms import equal_accuracy
from spokeshave.report.arms_record import number_words

ROOT = Path(__file__).resolve().parent.parent


def ssl_rows(directory: Path) -> str:
    """The rows of recipe `ssl` as Markdown, in the alphabet's order of their names."""
    lines = [
        "| row | published: baseline, error | here: baseline | as long, dense | here: error (seeds) "
        "| kept, published | kept, here | FLOPs | parameters | time, batch 16 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(row) for row in read_rows("ssl", directory))])


def _line(row: Row) -> str:
    numbers, before, after = row.numbers, row.numbers["before"], row.numbers["after"]
    published = numbers["published"] or {}
    errors = ", ".join(f"{100 * published[name]:.2f}" for name in ("baseline", "error") if name in published)
    kinds = [kind for kind in ("filters", "channels", "columns", "neurons", "layers") if kind in published]
    kept = numbers["kept"]
    timed = next((r for r in numbers["comparison"]["rows"] if r["batch_size"] == 16 and r["threads"] == 1), None)
    cells = [
        row.row,
        f"{errors} %",
        f"{_error(numbers, 'baseline_error')} %",
        "-" if numbers.get("control_error") is None else f"{_error(numbers, 'control_error')} %",
        f"**{_error(numbers, 'error')} %** ({len(row.seeds)})",
        "; ".join(f"{published[kind]} {kind}" for kind in kinds),
        "; ".join(f"{kept[kind]} {kind}" for kind in kinds if kind in kept),
        f"{before['flops'] / after['flops']:.1f}x fewer",
        f"{before['parameters'] / after['parameters']:.1f}x fewer",
        "-" if timed is None else f"{timed['ratio']:.2f} ± {timed['ratio_spread']:.2f}x faster",
    ]
    return "| " + " | ".join(cells) + " |"


def _error(numbers: dict, name: str) -> str:
    spread = numbers.get(f"{name}_spread")
    return f"{100 * numbers[name]:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def alexnet_layers(directory: Path) -> str:
    """Table 4, layer by layer: published against here."""
    lines = ["| Table 4 #2 | conv1 | conv2 | conv3 | conv4 | conv5 | mean |", "|---|---|---|---|---|---|---|"]
    for row in read_rows("ssl_alexnet", directory):
        numbers, paper = row.numbers, row.numbers["published"]
        for label, values, digits in (
            ("zero rows %, published", paper["row"], 1),
            ("zero rows %, here", numbers["row_percent"], 1),
            ("zero columns %, published", paper["column"], 1),
            ("zero columns %, here", numbers["column_percent"], 1),
            ("speedup, published (matrix product alone)", paper["cpu"], 2),
            (f"speedup, here (whole layer, batch {row.config['batch_size']}, 1 thread)", numbers["speedup"], 2),
        ):
            known = [value for value in values if value is not None]
            cells = ["not timed" if value is None else f"{value:.{digits}f}" for value in (*values, mean(known))]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
        whole = numbers["comparison"]["rows"][0]
        lines += [
            "",
            f"The whole network is {whole['ratio']:.2f} ± {whole['ratio_spread']:.2f} times faster at batch "
            f"{whole['batch_size']} on one thread, its fully connected layers, which stay dense, included.",
        ]
    return "\n".join(lines)


def shrink_benchmark(directory: Path) -> str:
    """Measured against predicted speedup of whole networks, and against torch-pruning where it ran."""
    lines = [
        "| network | predicted by FLOPs | batch | measured, 1 thread | against torch-pruning |",
        "|---|---|---|---|---|",
    ]
    for row in _benchmarks(directory, "shrink-"):
        numbers = row.numbers
        peer = {line["batch_size"]: line for line in numbers.get("torch_pruning", {}).get("rows", ())}
        for line in numbers["comparison"]["rows"]:
            batch = line["batch_size"]
            cells = [
                row.row.removeprefix("shrink-"),
                f"{numbers['predicted']:.2f}x",
                str(batch),
                _faster(line),
                _faster(peer[batch]) if batch in peer else "-",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def terngrad_accuracy(directory: Path) -> str:
    """Ternary against exact gradients at equal budget; only the rows that were measured."""
    lines = [
        "| row | workers | published: float, ternary, gap | here: float | here: ternary | gap, points (seeds) "
        "| zero codes | fewer bytes sent |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = read_rows("terngrad", directory) if (directory / "terngrad").is_dir() else ()
    for row in rows:
        numbers, published = row.numbers, row.numbers["published"]
        spread = numbers["gap_points_spread"]
        paper = "-"
        if published:
            exact, ternary = 100 - published["float_accuracy"], 100 - published["accuracy"]
            paper = f"{exact:.2f} %, {ternary:.2f} %, {published['gap']:+.2f}"
        codes = numbers["zero_codes"].values()
        cells = [
            row.row,
            str(row.config["workers"]),
            paper,
            f"{100 * numbers['float_error']:.2f} %",
            f"**{100 * numbers['error']:.2f} %**",
            f"**{numbers['gap_points']:+.2f}**{'' if spread is None else f' ± {spread:.2f}'} ({len(row.seeds)})",
            f"{100 * min(codes):.0f} to {100 * max(codes):.0f} %",
            f"{numbers['float_bytes'] / numbers['sent_bytes']:.1f}x",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def arms(recipe: str, quantities: Mapping[str, str]) -> Callable[[Path], str]:
    """Makes the table of a recipe that compares arms, from its name and the further numbers to show, with headings."""

    def table(directory: Path) -> str:
        headings = [
            "row",
            "arm",
            "test error (seeds)",
            "above the first arm, points",
            "published error",
            *quantities.values(),
        ]
        lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
        for row in read_rows(recipe, directory) if (directory / recipe).is_dir() else ():
            published = (row.numbers["published"] or {}).get("accuracy") or {}
            for name, arm in row.numbers["arms"].items():
                error, gap, spread = arm["error"], arm["gap_points"], arm["gap_points_spread"]
                errors = f"{100 * error:.2f}" + _plus_minus(arm["error_spread"], 100) + f" % ({len(row.seeds)})"
                gaps = f"{gap:+.2f}{_plus_minus(spread)}".replace("-", "−")
                cells = [
                    row.row,
                    name,
                    f"**{errors}**" if name == row.numbers["headline"] else errors,
                    "" if name == row.numbers["reference"] else gaps,
                    f"{100 - published[name]:.2f} %" if name in published else "",
                    *(number_words(key, arm["numbers"].get(key)) for key in quantities),
                ]
                lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    return table


def comparisons(recipe: str) -> Callable[[Path], str]:
    """Makes the further tables of a recipe that compares arms, each under its title, from its name."""

    def tables(directory: Path) -> str:
        parts = []
        for row in read_rows(recipe, directory) if (directory / recipe).is_dir() else ():
            for title, rows in row.numbers["layers"].items():
                names = list(dict.fromkeys(name for one in rows for name in one))
                headings = [name.removesuffix("_share").replace("_", " ") for name in names]
                lines = [
                    f"**{row.row}.** {title}:\n",
                    "| " + " | ".join(headings) + " |",
                    "|" + "---|" * len(names),
                    *("| " + " | ".join(number_words(name, one.get(name)) for name in names) + " |" for one in rows),
                ]
                parts.append("\n".join(lines))
        return "\n\n".join(parts)

    return tables


def equal_table(directory: Path) -> str:
    """What each arm of recipe `truenorth` needs for plain Tea's accuracy, by means over seeds."""
    lines = [
        "| row | arm | copies like Tea's 16 | cores | cores saved | spikes per frame like Tea's 13 | times fewer |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in read_rows("truenorth", directory) if (directory / "truenorth").is_dir() else ():
        for found in equal_accuracy({name: arm["numbers_by_seed"] for name, arm in row.numbers["arms"].items()}):
            cells = [row.row, *(number_words(name, value) for name, value in found.items())]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spike_simulation(directory: Path) -> str:
    """Image-ticks a second of the simulator of neurosynaptic cores, beside RANC."""
    lines = [
        "| grid | cores in use | simulator | image-ticks a second | times RANC | peak memory, GiB |",
        "|---|---|---|---|---|---|",
    ]
    for row in _benchmarks(directory, "spike-simulation"):
        for case in row.numbers["cases"]:
            for name, found in case["contestants"].items():
                ratio = found["ratio"]
                cells = [
                    f"{case['case']}, {case['grid'][0]} x {case['grid'][1]}",
                    f"{case['cores']:,}",
                    name,
                    f"{found['image_ticks_per_s']:,.0f}",
                    "-" if ratio is None else f"{ratio:,.0f} ± {found['ratio_spread']:,.0f}",
                    f"{case['peak_bytes'] / 2**30:.2f}",
                ]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plus_minus(spread: float | None, factor: float = 1) -> str:
    return "" if spread is None else f" ± {factor * spread:.2f}"


def ternary_codec(directory: Path) -> str:
    """What a worker's ternary step costs an element, beside torch."""
    lines = [
        "| gradients | workers | what | ns a gradient | fastest | best of torch takes |",
        "|---|---|---|---|---|---|",
    ]
    for row in _benchmarks(directory, "ternary-codec"):
        for line in row.numbers["rows"]:
            cells = [
                f"{line['elements']:,}",
                str(line["workers"]),
                line["contestant"],
                f"{line['ns']:.2f} ± {line['ns_spread']:.2f}",
                f"{line['ns_fastest']:.2f}",
                f"{_faster(line)} as long",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def network_steps(directory: Path) -> str:
    """Steps over shaped networks: AUTO against float32 and bfloat16, the fastest wire, and bytes."""
    lines = [
        "| network | workers | link | float32, ms a step | AUTO against float32, bfloat16 | fastest wire: the same "
        "| fewer bytes: AUTO, base 3 | payload over formula |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in _benchmarks(directory, "network-"):
        for setting in row.numbers["settings"]:
            outcomes = setting["outcomes"]
            wires = {name: one for name, one in outcomes.items() if name not in ("fp32", "bf16", "auto")}
            best = min(wires, key=lambda name: wires[name]["step_s"][0])
            base3 = "allgather-base3" if setting["workers"] == 2 else "alltoall-base3"
            whole = outcomes["fp32"]["payload_bytes"]
            over = [one["payload_bytes"] / one["formula_bytes"] for one in outcomes.values()]
            cells = [
                f"{setting['network']}, {setting['parameters'] / 1e6:.1f} million",
                str(setting["workers"]),
                setting["rate"],
                f"{1e3 * outcomes['fp32']['step_s'][0]:.0f} ± {1e3 * outcomes['fp32']['step_s'][1]:.0f}",
                _against_both(outcomes["auto"]),
                f"{best}: {_against_both(outcomes[best])}",
                ", ".join(f"{whole / outcomes[name]['payload_bytes']:.1f}x" for name in ("auto", base3)),
                f"{min(over):.3f} to {max(over):.3f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def crossbar_forward(directory: Path) -> str:
    """LeNet on crossbars beside aihwkit."""
    lines = [
        "| LeNet, batch 64 | ms | fastest | relative error against digital | as fast as aihwkit |",
        "|---|---|---|---|---|",
    ]
    for row in _benchmarks(directory, "crossbar-forward"):
        for line in row.numbers["rows"]:
            cells = [
                line["contestant"],
                f"{line['ms']:.1f} ± {line['ms_spread']:.1f}",
                f"{line['ms_fastest']:.1f}",
                f"{line['relative_error']:.0e}",
                "" if line["ratio"] is None else f"**{_faster(line)}**",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def structure_speed(directory: Path) -> str:
    """How fast members of parallel MAT train, together and one after the other."""
    lines = [
        "| network | members, steps each | members train | seconds | times as fast as one after the other |",
        "|---|---|---|---|---|",
    ]
    for row in _benchmarks(directory, "adversarial-structures"):
        for found in row.numbers["speed"]:
            for name, one in found["contestants"].items():
                cells = [
                    found["network"],
                    f"{found['members']}, {found['steps']}",
                    name,
                    f"{one['seconds']:.1f}",
                    f"{one['times_faster']:.2f} ± {one['spread']:.2f}",
                ]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def structure_memory(directory: Path) -> str:
    """Memory of training one network, by what it is trained on."""
    lines = ["| network | trained | tensors, MiB | of one strength | resident, MiB |", "|---|---|---|---|---|"]
    for row in _benchmarks(directory, "adversarial-structures"):
        for kind, arms_found in row.numbers["memory"].items():
            one = arms_found["one strength"]["tensor_bytes"]
            for arm, found in arms_found.items():
                cells = [
                    kind,
                    arm,
                    f"{found['tensor_bytes'] / 2**20:.2f}",
                    f"{found['tensor_bytes'] / one:.3f}",
                    f"{found['resident_bytes'] / 2**20:.1f}",
                ]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _against_both(outcome: dict) -> str:
    return ", ".join("{:.2f} ± {:.2f}x".format(*outcome["faster_than"][name]) for name in ("fp32", "bf16"))


def low_rank_benchmark(directory: Path) -> str:
    """AlexNet's convolutions at the authors' ranks: measured, predicted, published."""
    lines = [
        "| layer, rank | batch | dense, ms | split, ms | measured, 1 thread | by multiply-adds | by roofline | paper |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in _benchmarks(directory, "low-rank"):
        for line in row.numbers["rows"]:
            times = ("{:.2f} ± {:.2f}".format(*(1e3 * s for s in line[key])) for key in ("dense_s", "split_s"))
            predicted = (_times(line[key]) for key in ("predicted_flops", "predicted_roofline", "published"))
            kind = "separable, " if line["split"] == "separable" else ""
            cells = [
                f"{line['layer']}, {kind}{line['rank']}",
                str(line["batch_size"]),
                *times,
                _faster(line),
                *predicted,
            ]
            lines.append("| " + " | ".join(cells) + " |")
        for line in row.numbers["totals"]:
            cells = [
                line["layer"],
                str(line["batch_size"]),
                "",
                "",
                _times(line["ratio"]),
                "",
                "",
                _times(line["published"]),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def factorized_networks(directory: Path) -> str:
    """Whole factorized networks as generated code beside the dense ones in every engine."""
    lines = [
        "| network, ranks | batch | generated code, ms | fastest dense engine | times as fast "
        "| fastest other, factorized | times as fast |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in _benchmarks(directory, "factorized-networks"):
        for line in row.numbers["settings"]:
            cells = [line["case"], str(line["batch"]), f"{1e3 * line['seconds']['spokeshave']:.2f}"]
            for who in (line["best_dense"], line["best_factorized"]):
                took = "-" if who is None else f"{who}, {1e3 * line['seconds'][who]:.2f} ms"
                cells += [took, "-" if who is None else "{:.2f} ± {:.2f}x".format(*line["ratio"][who])]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def _benchmarks(directory: Path, beginning: str) -> list[Row]:
    return [row for row in read_rows("benchmarks", directory) if row.row.startswith(beginning)]


def _faster(line: dict) -> str:
    return f"{line['ratio']:.2f} ± {line['ratio_spread']:.2f}x"


PLACES: tuple[tuple[str, str, Callable[[Path], str]], ...] = (
    ("README.md", "results", ssl_rows),
    ("docs/papers/ssl.md", "measured", ssl_rows),
    ("docs/papers/ssl.md", "alexnet", alexnet_layers),
    ("docs/shrink.md", "benchmark", shrink_benchmark),
    ("docs/low_rank.md", "low-rank", low_rank_benchmark),
    ("docs/low_rank.md", "factorized-networks", factorized_networks),
    ("docs/papers/terngrad.md", "accuracy", terngrad_accuracy),
    ("docs/papers/terngrad.md", "codec", ternary_codec),
    ("docs/papers/terngrad.md", "network", network_steps),
    ("docs/crossbar.md", "crossbar-forward", crossbar_forward),
    (
        "docs/papers/group_scissor.md",
        "group-scissor",
        arms(
            "group_scissor",
            {
                "area_share": "crossbar area",
                "wires_share": "wires left",
                "mean_routing_share": "routing area, mean of layers",
                "total_routing_share": "routing area, of sums",
                "crossbars": "crossbars",
            },
        ),
    ),
    (
        "docs/papers/force.md",
        "force",
        arms(
            "force",
            {
                "mean_rank_ratio": "mean rank ratio at 5 %",
                "flops_share": "FLOPs",
                "parameters_share": "parameters",
                "torch_speedup_batch_16": "times as fast in torch",
                "compiled_speedup_batch_16": "times as fast by to_sparse",
            },
        ),
    ),
    ("docs/truenorth.md", "spike-simulation", spike_simulation),
    (
        "docs/papers/truenorth.md",
        "truenorth",
        arms(
            "truenorth",
            {
                "float_error_share": "float",
                "error_5_copies_share": "5 copies",
                "error_16_copies_share": "16 copies",
                "error_2_spikes_share": "2 spikes",
                "error_13_spikes_share": "13 spikes",
                "variance": "mean p (1 - p)",
                "cores": "cores a copy",
            },
        ),
    ),
    ("docs/papers/truenorth.md", "equal", equal_table),
    ("docs/papers/one_level.md", "one-level", arms("one_level", {"zero_share": "zeros"})),
    (
        "docs/papers/mat.md",
        "mat",
        arms(
            "mat",
            {
                "pgd_area": "area, PGD-20",
                "autoattack_area": "area, AutoAttack",
                "networks": "networks",
                "epochs": "epochs",
                "gradients": "attack gradients an image",
            },
        ),
    ),
    ("docs/papers/mat.md", "mat-comparisons", comparisons("mat")),
    ("docs/papers/mat.md", "structure-speed", structure_speed),
    ("docs/papers/mat.md", "structure-memory", structure_memory),
    (
        "docs/papers/poisoning.md",
        "poisoning",
        arms(
            "poisoning",
            {
                "seconds": "seconds a poison",
                "times_faster": "times faster than differences",
                "loss_area": "loss: ROC area",
                "loss_found_share": "loss: found at 1 %",
                "loss_filtered_error_share": "error, filtered by loss",
                "both_area": "loss or distance: ROC area",
                "both_found_share": "loss or distance: found at 1 %",
                "both_filtered_error_share": "error, filtered by both",
            },
        ),
    ),
    ("docs/papers/poisoning.md", "poisoning-comparisons", comparisons("poisoning")),
    ("docs/papers/compact_dnn.md", "digits", adaptation_tables.digits),
    ("docs/papers/compact_dnn.md", "networks", adaptation_tables.networks),
    ("docs/papers/compact_dnn.md", "office", adaptation_tables.office),
    ("docs/papers/compact_dnn.md", "conv-m", adaptation_tables.conv_m),
    ("docs/papers/compact_dnn.md", "compact-speed", adaptation_tables.speed),
    ("docs/papers/compact_dnn.md", "forms", adaptation_tables.forms),
    ("docs/papers/compact_dnn.md", "fixed-features", adaptation_tables.fixed_features),
)
"""File, the mark around the table in it, what writes the table from the ledger's folder."""


def main(arguments: list[str]) -> int:
    """Rewrite or check the tables."""
    stale = []
    for name, mark, table in PLACES:
        text = (ROOT / name).read_text()
        block = f"<!-- {mark} -->\n\n{table(ROOT / 'results')}\n\n<!-- /{mark} -->"
        start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
        head, _, rest = text.partition(start)
        new = head + block + (rest.partition(end)[2] if end in rest else rest)
        if new != text:
            stale.append(name)
            if "--check" not in arguments:
                atomic_write(ROOT / name, new)
    print("out of date:" if "--check" in arguments else "rewritten:", ", ".join(stale) or "nothing")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
