"""Everything that is written, on disks in real trouble and by processes that are killed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpu_benchmark_cases import needs_generated_code
from disk_trouble import Trouble, strike, why_not

SAYS = {
    Trouble.LIMIT: "the file is larger than this file system or a resource limit allows",
    Trouble.FULL: "the disk is full: free some space",
    Trouble.READ_ONLY: "the file system is read-only: choose another folder",
    Trouble.FORBIDDEN: "permission denied: choose a folder that you may write to",
}


@pytest.fixture(scope="module", params=list(Trouble), ids=lambda trouble: trouble.name.lower())
def struck(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Trouble, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("disk")
    if why := why_not(request.param, folder):
        pytest.skip(why)
    yield request.param, strike(request.param, folder)
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        place.chmod(0o755)


@needs_generated_code
def test_a_cache_that_cannot_be_written_costs_one_warning_and_nothing_else(
    struck: tuple[Trouble, dict[str, Any]],
) -> None:
    trouble, found = struck
    (warning,) = found["warnings"]
    assert f"cache cannot be written: {SAYS[trouble].split(':')[0]}" in warning and "SPOKESHAVE_CACHE" in warning
    assert found["error"] < 1e-4 and found["facts"] == [1, 2]


@needs_generated_code
def test_what_cannot_be_written_is_said_and_the_earlier_file_stays(struck: tuple[Trouble, dict[str, Any]]) -> None:
    trouble, found = struck
    assert f"net.safetensors failed: {SAYS[trouble]}" in found["save_sparse"]
    assert f"lenet.json failed: {SAYS[trouble]}" in found["ledger"]
    code, complaint = found["bench"]
    assert code == 2 and SAYS[trouble] in complaint and "bench" in complaint
    assert all(found["kept"].values()) and found["litter"] == []


KILLED_WRITERS = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np, torch
from torch import nn
import spokeshave as ss
from spokeshave.jit import code_cache
from spokeshave.user_cache import FactCache

folder = Path(sys.argv[1])
random.seed(0)
torch.set_num_threads(1)  # threads of a pool would not live on in a fork
weights = [torch.full((64, 256), value) for value in (1.0, 2.0)]
networks = []
for weight in weights:
    layer = nn.Linear(256, 64, bias=False)
    layer.weight.data = weight
    networks.append(ss.to_sparse(nn.Sequential(layer, nn.ReLU()), torch.ones(1, 256))[0])
path = ss.save_sparse(networks[0], folder / "net.safetensors")

def write(turn):
    for number in range(turn * 1000, turn * 1000 + 1000):
        code_cache.cached(f"entry{number}", lambda: {"a": np.full(40_000, number)})
        FactCache("facts").keep({str(number % 50): number, "pad": "x" * 40_000})
        ss.save_sparse(networks[number % 2], path)

left, sound, litter = 0, True, 0
for turn in range(15):
    child = os.fork()
    if not child:
        write(turn)
        os._exit(0)
    time.sleep(random.uniform(0.05, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for file in (folder / "cache" / "code").glob("entry*.safetensors"):
        found = code_cache.found(file.stem)
        sound &= found is None or bool((found["a"] == int(file.stem[5:])).all())
        left += 1
    sound &= json.loads((folder / "cache" / "facts.json").read_text())["version"] == 1
    sound &= FactCache("facts").get("pad") == "x" * 40_000
    answer = float(ss.load_sparse(path)(torch.ones(1, 256))[0, 0])
    sound &= answer in (256.0, 512.0)
    litter = max(litter, len(list(folder.rglob("*.tmp"))))
code_cache.cached("last", lambda: {"a": np.zeros(1)})
FactCache("facts").keep({})
ss.save_sparse(networks[0], path)
print(json.dumps([left, sound, litter, len(list(folder.rglob("*.tmp")))]))
"""


@needs_generated_code
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_processes_killed_while_they_write_leave_whole_files_and_little_litter(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WRITERS, str(tmp_path)], capture_output=True, text=True, check=False,
        env=os.environ | {"SPOKESHAVE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    entries, sound, most, last = json.loads(done.stdout.splitlines()[-1])
    assert entries > 20 and sound
    assert most <= 3 and last == 0
