"""Tables of adaptation from rows of a ledger that are written here."""

import json
from pathlib import Path

import adaptation_tables

from spokeshave.ledger import write_row


def arm(*errors: float) -> dict:
    return {"errors": list(errors)}


def adapted(folder: Path, row: str, frozen: bool, network: str, form: str, more: int = 0, **arms: dict) -> None:
    numbers = {
        "arms": {name.replace("_", "-"): one for name, one in arms.items()},
        "layers": {"Network": [{"parameters": 1234, "flops": 5e6}]},
    }
    config = {"frozen": frozen, "network": network, "form": form, "recovery": {"epochs": more} if more else None}
    path = write_row(
        "adaptation", row, config, numbers, seeds=[0, 1], wall_s=1.0, command="x", directory=folder, allow_dirty=True
    )
    assert json.loads(path.read_text())["row"] == row


def test_tables(tmp_path: Path) -> None:
    tables = (adaptation_tables.digits, adaptation_tables.networks, adaptation_tables.office, adaptation_tables.forms)
    for table in tables:
        assert table(tmp_path) == adaptation_tables.NOTHING
    adapted(tmp_path, "usps-mnist", False, "small", "dense", source_only=arm(0.5), full=arm(0.1, 0.2))
    adapted(tmp_path, "amazon-dslr", True, "compact", "dense", source_only=arm(0.5), full=arm(0.4))
    adapted(tmp_path, "dslr-amazon", True, "compact", "dense", source_only=arm(0.5), full=arm(0.6))
    adapted(tmp_path, "dslr-amazon-alexnet", True, "alexnet", "dense", source_only=arm(0.7), full=arm(0.6),
            target=arm(0.1))  # fmt: skip
    adapted(tmp_path, "amazon-dslr-shrunk", False, "compact", "shrunk", 1, source_only=arm(0.3), full=arm(0.2))
    adapted(tmp_path, "amazon-dslr-longer", True, "compact", "dense", 1, source_only=arm(0.9), full=arm(0.9))
    assert "| usps-mnist (2 seeds) | 50.0 | **85.0 ± 7.1** |" in adaptation_tables.digits(tmp_path)
    table = adaptation_tables.office(tmp_path).splitlines()
    assert "compact: source only, full" in table[0] and "alexnet: source only, full" in table[0]
    cells = {line.split(" | ")[0].strip("| *"): line for line in table}
    assert "alexnet: source only, full, target's labels" in table[0] and "30.0, 40.0, 90.0" in cells["dslr-amazon"]
    assert "50.0, 60.0" in cells["amazon-dslr"] and "50.0, 40.0" in cells["dslr-amazon"]
    assert "50.0, **50.0**" in cells["mean"] and "30.0, **40.0**" in cells["mean"]
    assert adaptation_tables.networks(tmp_path).splitlines()[2:] == [
        "| compact | 1,234 | 5 | 50.0 | **50.0** | 1 of 2 |",
        "| alexnet | 1,234 | 5 | 30.0 | **40.0** | 1 of 1 |",
    ]
    assert adaptation_tables.forms(tmp_path).splitlines()[2:] == [
        "| amazon-dslr | compact | dense | last stage | 0 | 1,234 | 5 | 50.0 | 60.0 |",
        "| amazon-dslr | compact | dense | last stage | 1 | 1,234 | 5 | 10.0 | 10.0 |",
        "| amazon-dslr | compact | shrunk | all layers | 1 | 1,234 | 5 | 70.0 | 80.0 |",
    ]


def test_fixed_features(tmp_path: Path) -> None:
    numbers = {"surf": {"a to b": {"1-NN": [0.25], "head": [0.5, 0.6]}, "b to a": {"1-NN": [0.35], "head": [0.7]}}}
    write_row(
        "benchmarks", "fixed-features", {}, numbers, seeds=[0], wall_s=1.0, command="x", directory=tmp_path,
        allow_dirty=True,
    )  # fmt: skip
    assert adaptation_tables.fixed_features(tmp_path).splitlines() == [
        "| surf: task | 1-NN | head |", "|---|---|---|", "| a to b | 25.0 | 55.0 ± 7.1 |", "| b to a | 35.0 | 70.0 |",
        "| **mean** | **30.0** | **62.5** |",
    ]  # fmt: skip


def test_kinds_of_branches(tmp_path: Path) -> None:
    numbers = {"convolutions": {"parameters": 1000, "validation": [0.1], "test": [0.5, 0.6]}}
    write_row(
        "benchmarks", "conv-m-ablation", {}, numbers, seeds=[0], wall_s=1.0, command="x", directory=tmp_path,
        allow_dirty=True,
    )  # fmt: skip
    assert adaptation_tables.conv_m(tmp_path).splitlines()[2:] == ["| convolutions | 1,000 | 55.0 ± 7.1 |"]


def test_speed(tmp_path: Path) -> None:
    found = {"network": "googlenet", "size": 64, "classes": 10, "parameters": 5_991_082, "flops": 258e6}
    found |= {"batch_size": 16, "threads": 1, "ms": 40.0, "ratio": 1.25, "ratio_spread": 0.05}
    write_row(
        "benchmarks", "compact-speed", {}, {"rows": [found]}, seeds=[0], wall_s=1.0, command="x", directory=tmp_path,
        allow_dirty=True,
    )  # fmt: skip
    assert adaptation_tables.speed(tmp_path).splitlines()[2:] == [
        "| googlenet | 64, 10 | 5,991,082 | 258 | 16 | 1 | 1.25 ± 0.05 |"
    ]
