"""A small but whole run record: a real network before and after, measured; its history and sweep made up. A browser."""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spokeshave.measure import compare, measure
from spokeshave.report.run_record import Outcome, RunRecord

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
# Milliseconds: playwright's own 30 seconds are too few for a browser's start on a busy machine.
_PATIENCE = 180_000


class Net(nn.Module):
    def __init__(self, first: int, second: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, first, 5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.ip1 = nn.Linear(second * 16, hidden)
        self.ip2 = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool2(self.conv2(self.pool1(self.conv1(x))))
        return self.ip2(torch.relu(self.ip1(x.flatten(1))))


def history(layers: list[str], epochs: int, start: float, end: float) -> list[dict]:
    """Curves that look like a training's: loss falls, zeros grow late."""
    rows = []
    for epoch in range(epochs):
        done = (epoch + 1) / epochs
        share = start + (end - start) * done**2
        rows.append(
            {
                "epoch": epoch,
                "step": (epoch + 1) * 600,
                "train_loss": 0.02 + 0.5 * math.exp(-4 * done) + 0.003 * math.sin(9 * epoch),
                "validation_loss": 0.04 + 0.4 * math.exp(-4 * done) + 0.004 * math.cos(7 * epoch),
                "validation_accuracy": 0.99 - 0.05 * math.exp(-5 * done) + 0.0005 * math.sin(5 * epoch),
                "learning_rate": 0.01,
                "sparsity": {
                    layer: {
                        "elements": share * (0.6 + 0.1 * index),
                        "filters": share * (0.9 - 0.2 * index),
                        "channels": 0.0 if index == 0 else share * 0.7,
                        "shapes": share * (0.5 + 0.1 * index),
                    }
                    for index, layer in enumerate(layers)
                },
                "wall_s": 2.0,
            }
        )
    return rows


def pruned(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """Keep a few rows and columns, chosen by a fixed draw."""
    keep_rows = torch.randperm(matrix.shape[0])[:rows]
    keep_columns = torch.randperm(matrix.shape[1])[:columns]
    mask = torch.zeros_like(matrix)
    mask[keep_rows[:, None], keep_columns] = 1
    return matrix * mask


@pytest.fixture(scope="session")
def record() -> RunRecord:
    torch.manual_seed(7)
    before, after = Net(20, 50, 500), Net(4, 12, 180)
    example = torch.rand(1, 1, 28, 28)
    changes = [
        ("conv1", (4, 20), (1, 1), (21, 25)),
        ("conv2", (12, 50), (4, 20), (88, 500)),
        ("ip1", (180, 500), None, (192, 800)),
        ("ip2", (10, 10), None, (180, 500)),
    ]
    layers = [
        {
            "name": name,
            "kind": "Conv2d" if channels else "Linear",
            "weight_shape_before": [filters[1], columns[1]],
            "weight_shape_after": [filters[0], columns[0]],
            "filters_kept": filters[0],
            "filters_total": filters[1],
            "channels_kept": channels[0] if channels else None,
            "channels_total": channels[1] if channels else None,
            "columns_kept": columns[0],
            "columns_total": columns[1],
            "squeezed": name == "conv2",
            "note": "gathers 88 of 500 patch rows" if name == "conv2" else "",
        }
        for name, filters, channels, columns in changes
    ]
    modules = dict(before.named_modules())
    weights = {}
    for name, filters, _, columns in changes:
        weight = modules[name].get_parameter("weight").detach()
        weights[name] = pruned(weight.flatten(1), filters[0], columns[0])
    dense = measure(before, example, repeats=2, threads=(1,))
    small = measure(after, example, repeats=2, threads=(1,))
    sweep = [(0.01, 0.0088, 0.6), (0.03, 0.0091, 0.3), (0.1, 0.0097, 0.08), (0.2, 0.013, 0.03), (0.05, 0.0105, 0.21)]
    return RunRecord(
        recipe="ssl",
        row="lenet-3",
        title="LeNet under structured sparsity: filters and channels",
        config={"learning_rate": 0.01, "epochs": 30, "strengths": {"filters": 0.05, "shapes": 0.02}, "sizes": [1, 2]},
        seeds=[0, 1, 2],
        versions={"spokeshave": "0.1.0", "torch": "2.13.0"},
        machine={"cpu": "Some CPU at 3 GHz", "cores": 2, "memory_gib": 23.5, "os": "Debian GNU/Linux 12"},
        commit="0123456789abcdef0123456789abcdef01234567",
        wall_s=734.2,
        baseline=Outcome(0.9908, 0.0092, dense),
        final=Outcome(0.9902, 0.0098, small, error_spread=0.0007),
        comparison=compare(before, after, example, repeats=3),
        shrink={
            "layers": layers,
            "removed_branches": ["stage3.block2"],
            "notes": ["conv1: 16 dead filters sent their bias on; folded into conv2's bias"],
            "max_relative_error": 3.2e-7,
        },
        history={
            "baseline": history(list(weights), 12, 0.0, 0.0),
            "group lasso": history(list(weights), 30, 0.0, 0.9),
            "fine-tuning": history(list(weights), 12, 0.9, 0.9),
        },
        points=[
            {"label": "SSL", "strength": s, "error": e, "flops": int(dense.flops * f), "parameters": 1, "stage": "ssl"}
            for s, e, f in sweep
        ],
        paper={
            "label": "LeNet 3, Table 1 (NIPS 2016)",
            "error": 0.010,
            "flops": 0.045,
            "filters left": {"published": [3, 12], "ours": [4, 12]},
            "speedup of conv2": {"published": "7.44×", "ours": None},
        },
        data="MNIST",
        weights=weights,
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: the page was NOT opened in a browser (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser test")
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--no-sandbox", "--disable-component-update", "--disable-sync"]
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=quiet, timeout=_PATIENCE)
        yield running
        running.close()


@pytest.fixture
def open_file(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page at a width and colour scheme; afterwards nothing may have been complained about or fetched."""
    complaints: list[str] = []

    def opened(path: Path, width: int, scheme: str = "light") -> Any:
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.set_default_timeout(_PATIENCE)
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url[:80]}"))
        page.on(
            "request",
            lambda request: request.url.startswith(("file:", "data:")) or complaints.append(f"fetched: {request.url}"),
        )
        page.goto(path.as_uri())
        return page

    yield opened
    assert complaints == []
