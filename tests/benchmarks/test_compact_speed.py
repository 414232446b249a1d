"""Each network is timed beside the compact one."""

import compact_speed
import pytest
from compact_speed import NETWORKS, Options, main, speed

from spokeshave.models import CompactNet
from spokeshave.recipes.adaptation_rows import NetworkName


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = speed(64, 10, Options(batches=(1,), rounds=2, budget_s=1.0))
    assert [row["network"] for row in rows] == [network.value for network in NETWORKS]
    compact = next(row for row in rows if row["network"] == "compact")
    assert (compact["ratio"], compact["ratio_spread"]) == (1.0, 0.0)
    assert all(row["ms"] > 0 and row["ratio"] > 0 for row in rows)
    count = sum(one.numel() for one in NetworkName.COMPACT.make(10, 64).parameters())
    assert compact["parameters"] == count < sum(one.numel() for one in CompactNet().parameters())


def test_a_table_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(compact_speed, "FORMS", ((64, 10),))
    main(Options(batches=(1,), rounds=2, budget_s=1.0))
    printed = capsys.readouterr().out
    assert "times as long" in printed and all(network.value in printed for network in NETWORKS)
