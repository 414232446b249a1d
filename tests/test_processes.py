"""Two processes under torchrun take the step that one process takes with the batch of both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spokeshave.errors import InvalidArgument
from spokeshave.processes import is_first, join_processes, leave_processes, usable_device, wait_for_all

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
from torch import nn
torch.set_num_threads(1)
from safetensors.torch import save_file
from spokeshave.data import Batches
from spokeshave.processes import from_first, join_processes, leave_processes
from spokeshave.regularizers import GroupLasso
from spokeshave.train_settings import TrainSettings
from spokeshave.training import train
from test_training import TRAINING, VALIDATION
rank, world = join_processes()
assert from_first([1.5 + rank, float(rank)]) == [1.5, 0.0]
torch.manual_seed(rank)  # DDP starts every process from the weights of the first
net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 2))
batches = Batches(TRAINING, 32 // world, 0, rank=rank, world_size=world)
pull = GroupLasso(net, filters=1e-2)
train(net, batches, Batches(VALIDATION, 64), TrainSettings(epochs=2), [pull], Path(sys.argv[1]))
save_file(net.state_dict(), f"{{sys.argv[1]}}/net-{{rank}}.safetensors")
leave_processes()
"""


@pytest.mark.parametrize("name", ["foo", "cuda:77", "cpu:cpu"])
def test_a_device_that_is_not_there_is_refused_at_once(name):
    with pytest.raises(InvalidArgument, match=rf"device '{name}' cannot be used here"):
        usable_device(name)


def test_alone_there_is_one_process_and_it_is_the_first():
    assert join_processes() == (0, 1) and is_first()
    wait_for_all()
    leave_processes()


def test_two_processes_equal_one_with_the_double_batch(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    for command, folder in ((torchrun, "two"), ([sys.executable], "one")):
        done = subprocess.run(
            [*command, str(script), str(tmp_path / folder)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, first, second = (
        load_file(tmp_path / f) for f in ("one/net-0.safetensors", "two/net-0.safetensors", "two/net-1.safetensors")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.allclose(one[name], first[name], atol=1e-4) for name in one)
    assert (tmp_path / "two" / "checkpoint.safetensors").exists()
