"""The cases of the benchmark of factorized networks, and what it says about them."""

import json

from low_rank_networks import OURS, Setting, cases, table
from rich.console import Console
from sparse_networks import BUILDERS


def test_published_ranks_come_first_and_rows_add_theirs(tmp_path) -> None:
    layers = [
        {"layer": "conv1", "full": 32, "plain-low-rank": 32, "force-low-rank": 9},
        {"layer": "conv2", "full": 32, "plain-low-rank": 27, "force-low-rank": 5},
    ]
    row = {"row": "convnet", "numbers": {"layers": {"Ranks at 5% error": layers}}}
    (tmp_path / "convnet.json").write_text(json.dumps(row))
    published, plain, force = cases((tmp_path / "convnet.json",))
    network = BUILDERS["resnet20"]()
    assert len(published.ranks) == 18 and "conv1" not in published.ranks  # of 19: the first layer is not forced
    assert all(rank < network.get_submodule(name).out_channels for name, rank in published.ranks.items())
    assert list(published.ranks.values())[-5:] == [1] * 5
    assert (plain.ranks, force.ranks) == ({"conv2": 27}, {"conv1": 9, "conv2": 5})  # a full rank is no split
    assert type(force.network()) is type(BUILDERS["convnet"]())


def test_the_table_names_the_best_of_both_kinds(capsys) -> None:
    seconds = {OURS: 0.01, "torch": 0.04, "openvino": 0.02, "deepsparse, factorized": 0.015}
    ratios = {"torch": (4.0, 0.1), "openvino": (2.0, 0.2), "deepsparse, factorized": (1.5, 0.3)}
    one = Setting("a net", 16, 1, {}, seconds, "openvino", "deepsparse, factorized", ratios, {})
    alone = Setting("alone", 1, 1, {}, seconds, "torch", None, ratios, {})
    Console(width=200).print(table([one, alone]))
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert "openvino: 20.00 ms  2.00 ± 0.20x" in first and "deepsparse, factorized: 15.00 ms  1.50 ± 0.30x" in first
    assert "torch: 40.00 ms" in second and "factorized" not in second
