"""Disks in real trouble for the tests: a limit on files, a full or read-only file system, folders without permission.

Run as a script by `strike`, in a process of its own, since neither limits nor permissions can be taken back.
"""

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import warnings
from enum import Enum
from pathlib import Path
from typing import Any


class Trouble(Enum):
    """What is wrong with the disk."""

    LIMIT = "files above a limit cannot be written"
    FULL = "full"
    READ_ONLY = "read-only"
    FORBIDDEN = "folders without write permission"


LIMIT_BYTES = 20_000
"""Room for what is tried first, so that the trouble comes late."""
EARLIER = "an earlier file"


def _mounting() -> list[str]:
    """The command in front of one that may mount file systems, seen by nobody else."""
    return ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


def _obeying() -> list[str]:
    """The command in front of one that permissions are to stop: without root's right to pass them by."""
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def why_not(trouble: Trouble, folder: Path) -> str:
    """Why this system cannot have such a trouble; '' where it can."""
    if trouble is Trouble.LIMIT:
        return ""
    command = [*_mounting(), "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if trouble is Trouble.FORBIDDEN:
        command = [*_obeying(), "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{trouble.name} cannot be had here: {error}"
    return f"{trouble.name} cannot be had here: {done.stderr.strip()}" if done.returncode else ""


def strike(trouble: Trouble, folder: Path) -> dict[str, Any]:
    """What happens to everything that is written, once its disk is in trouble."""
    before = {Trouble.LIMIT: [], Trouble.FORBIDDEN: _obeying()}.get(trouble, _mounting())
    command = [*before, sys.executable, __file__, trouble.name, str(folder)]
    environment = os.environ | {"SPOKESHAVE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # cut off by a limit, it would break every later import of a module
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _begin(trouble: Trouble, folder: Path) -> None:
    if trouble is Trouble.LIMIT:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, resource.RLIM_INFINITY))
    elif trouble is Trouble.FULL:
        with contextlib.suppress(OSError), (folder / "filling").open("wb", buffering=0) as filling:
            while True:
                filling.write(bytes(4096))
    elif trouble is Trouble.READ_ONLY:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        for place in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
            place.chmod(0o555)


def _said(act: Any) -> str:
    from spokeshave.errors import SpokeshaveError

    try:
        act()
    except SpokeshaveError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _script(trouble: Trouble, folder: Path) -> dict[str, Any]:
    if trouble in (Trouble.FULL, Trouble.READ_ONLY):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    import torch
    from torch import nn

    import spokeshave as ss
    from spokeshave.cli.main import main
    from spokeshave.ledger import write_row
    from spokeshave.user_cache import FactCache

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 24, 5), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 64, 12)).eval()
    images = torch.randn(3, 1, 12, 12)
    with torch.no_grad():
        wanted = network(images)
    for name in ("cache/code", "bench", "results/ssl"):
        (folder / name).mkdir(parents=True)
    for name in ("net.safetensors", "bench/report.html", "results/ssl/lenet.json"):
        (folder / name).write_text(EARLIER)
    _begin(trouble, folder)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fast, _ = ss.to_sparse(network, images)
        facts = FactCache("facts")
        facts.keep({"one": 1, "long": "x" * LIMIT_BYTES})
        facts.keep({"two": 2, "long": "x" * LIMIT_BYTES})
        with torch.no_grad():
            error = float((fast(images) - wanted).abs().max())
    numbers = {"error": 0.1, "long": "x" * LIMIT_BYTES}
    row = lambda: write_row(  # noqa: E731 - said and written in one go
        "ssl", "lenet", {}, numbers, seeds=[0], wall_s=1.0, allow_dirty=True, directory=folder / "results"
    )
    words = ["bench-cpu", "spokeshave.models.lenet:LeNet", "--input", "1,28,28", "--batch", "2", "--repeats", "1"]
    complaint = io.StringIO()
    with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(io.StringIO()):
        code = main([*words, "--sweep", "0", "--out", str(folder / "bench")])
    return {
        "error": error,
        "warnings": [str(warning.message) for warning in warned],
        "facts": [facts.get("one"), facts.get("two")],
        "save_sparse": _said(lambda: ss.save_sparse(fast, folder / "net.safetensors")),
        "ledger": _said(row),
        "bench": [code, complaint.getvalue()],
        "kept": {
            name: (folder / name).read_text() == EARLIER
            for name in ("net.safetensors", "bench/report.html", "results/ssl/lenet.json")
        },
        "litter": [path.name for path in folder.rglob("*.tmp")],
    }


if __name__ == "__main__":
    print(json.dumps(_script(Trouble[sys.argv[1]], Path(sys.argv[2]))))
