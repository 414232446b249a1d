"""Each network is timed beside the compact one."""

import compact_speed
import pytest
import torch
from compact_speed import FORMS, NETWORKS, OnItsImages, Options, main, speed

from spokeshave.models import CompactNet
from spokeshave.recipes.adaptation_rows import NetworkName


def test_rows() -> None:
    rows = speed(64, 10, Options(batches=(1,), rounds=2, budget_s=1.0))
    assert [row["network"] for row in rows] == [network.value for network in NETWORKS]
    compact = next(row for row in rows if row["network"] == "compact")
    assert (compact["ratio"], compact["ratio_spread"]) == (1.0, 0.0)
    assert all(row["ms"] > 0 and row["ratio"] > 0 and row["size"] == 64 for row in rows)
    count = sum(one.numel() for one in NetworkName.COMPACT.make(10, 64).parameters())
    assert compact["parameters"] == count < sum(one.numel() for one in CompactNet().parameters())


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_takes_the_images_that_it_is_timed_on(kind: NetworkName) -> None:
    for size, classes in FORMS:
        made = OnItsImages(kind, size, classes, 2).eval()
        with torch.no_grad():
            assert made(torch.zeros(1)).shape == (2, classes)


def test_a_table_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(compact_speed, "FORMS", ((64, 10),))
    main(Options(batches=(1,), rounds=2, budget_s=1.0))
    printed = capsys.readouterr().out
    assert "times as long" in printed and all(network.value in printed for network in NETWORKS)
