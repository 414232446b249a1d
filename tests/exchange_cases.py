"""A record of a comparison of exact and exchanged gradients, made up."""

from typing import Any

from spokeshave.report.exchange_record import ExchangeRecord


def history(steps: int, accuracy: float, codes: dict[str, float] | None = None) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(1, 4):
        row: dict[str, Any] = {"epoch": epoch, "step": epoch * steps, "train_loss": 1 / epoch, "wall_s": 10.0 * epoch}
        row["validation_accuracy"] = accuracy - 0.1 / epoch
        if codes is not None:
            row["exchange"] = {"zero_codes": {name: share - 0.1 + 0.05 * epoch for name, share in codes.items()}}
        rows.append(row)
    return rows


CODES = {"conv1.weight": 0.7, "ip1.weight": 0.84}


def made_up(**changes: Any) -> ExchangeRecord:
    values: dict[str, Any] = {
        "recipe": "terngrad", "row": "lenet-2", "title": "TernGrad: lenet-2 on mnist, 2 workers",
        "config": {"workers": 2, "training": {"steps": 300}}, "seeds": [0, 1, 2], "versions": {"torch": "2"},
        "machine": {"cpu": "some CPU"}, "commit": "abc1234", "wall_s": 61.4, "float_errors": [0.010, 0.011, 0.012],
        "errors": [0.012, 0.014, 0.013], "float_validation_errors": [0.02, 0.02, 0.02],
        "validation_errors": [0.02, 0.02, 0.03], "zero_codes": CODES,
        "float_bytes": 1_724_320, "sent_bytes": 107_000,
        "history": {"float": history(100, 0.99), "ternary": history(100, 0.98, CODES)},
        "paper": {"workers": 2, "float_accuracy": 99.2, "accuracy": 99.22, "gap": -0.02},
        "command": "spokeshave run terngrad --row lenet-2 --seeds 0 1 2", "data": "mnist",
    }  # fmt: skip
    return ExchangeRecord(**values | changes)
