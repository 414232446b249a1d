"""A record of a comparison of arms, made up."""

from typing import Any

import torch

from exchange_cases import history
from spokeshave.report.arms_record import Arm, ArmsRecord, Chart, Curve
from spokeshave.report.heat_table import HeatTable
from spokeshave.report.image_gallery import gallery

FLOAT = Arm("float", "the float network", [0.010, 0.011, 0.012], [0.02, 0.02, 0.02], [{}, {}, {}])
DIRECT = Arm(
    "direct", "quantized, no more", [0.60, 0.62, 0.64], [0.6, 0.6, 0.6], [{"zero_share": s} for s in (0.3, 0.4, 0.5)]
)
TUNED = Arm(
    "tuned", "quantized and trained", [0.012, 0.014, 0.013], [0.02, 0.02, 0.03],
    [{"zero_share": 0.5, "cells": 1200.0} for _ in range(3)],
)  # fmt: skip
LAYERS = [{"layer": "conv1", "zero_share": 0.25, "g": 0.0625}, {"layer": "fc", "zero_share": 1.0, "g": 0}]
CURVE = Curve("before", [-1.0, 0.0, 1.0], [0.1, None, 0.3], True)

TABLE = HeatTable("by strength", "trained at", ["none"], "attacked at", ["0", "0.1"], [[0.99, 0.25]], [[True, False]])
IMAGES = gallery("attacked digits", [("strength 0.1", torch.zeros(1, 1, 2, 2), ["seven"], [True])], "taken for another")


def made_up(**changes: Any) -> ArmsRecord:
    values: dict[str, Any] = {
        "recipe": "one_level", "row": "lenet", "title": "One level: lenet on mnist",
        "config": {"training": {"steps": 9}},
        "seeds": [0, 1, 2], "versions": {"torch": "2"}, "machine": {"cpu": "some CPU"}, "commit": "abc1234",
        "wall_s": 61.4, "history": {"float": history(100, 0.99), "tuned": history(100, 0.98)},
        "paper": {"gap": {"tuned": 0.19}, "note": "of an abstract"}, "data": "mnist",
        "command": "spokeshave run one_level --row lenet --seeds 0 1 2",
        "arms": [FLOAT, DIRECT, TUNED], "headline": "tuned",
        "quantities": {"zero_share": "zeros", "cells": "cells", "unused": "never measured"},
        "layers": {"tuned": LAYERS},
        "charts": [Chart("weights of conv1", "weight", "share", [CURVE])],
        "tables": [TABLE], "galleries": [IMAGES],
    }  # fmt: skip
    return ArmsRecord(**values | changes)
