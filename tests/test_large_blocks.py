"""Blocks are kept: page faults are counted in fresh processes, with and without."""

import subprocess
import sys

import pytest

from spokeshave.large_blocks import keep_large_blocks

COUNT = """
import resource, sys
from spokeshave.large_blocks import keep_large_blocks
import torch
from torch import nn
from torch.nn import functional
if sys.argv[1] == "keep":
    assert keep_large_blocks()
torch.set_num_threads(1)
net = nn.Sequential(
    nn.Conv2d(1, 16, 5), nn.ReLU(), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 400, 10)
)
images, labels = torch.rand(64, 1, 28, 28), torch.randint(0, 10, (64,))
for step in range(40):
    if step == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    net.zero_grad()
    functional.cross_entropy(net(images), labels).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux" or not keep_large_blocks(), reason="only glibc keeps blocks on request")
def test_steps_fault_no_pages_in_again() -> None:
    # Measured: 800 and 34,000 in twenty steps.
    assert 5 * faults("keep") < faults("leave")


def test_where_it_cannot_be_asked_for_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_large_blocks() is False
