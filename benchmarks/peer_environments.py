"""Makes an environment for each peer that the sparse engine is compared with, as peers/*.txt pin them.

    python benchmarks/peer_environments.py --folder build/peers

A peer that cannot be installed here is skipped with one line; the benchmarks then run without it. DeepSparse needs
numpy 1 and Python 3.11 at most. Also `--peers aihwkit`, for crossbar_forward.py: its packages bind another torch, so it
comes without what it asks for, and has a copy of Spokeshave beside it.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

HERE = Path(__file__).resolve().parent / "peers"
NEWEST_PYTHON = {"deepsparse": (3, 11)}
"""Peer -> newest Python that it has packages for."""
OLDEST_PYTHON = (3, 9)
ROOT = Path(__file__).resolve().parent.parent
WITH_SPOKESHAVE = ("aihwkit",)
"""Peers that are measured in one process with Spokeshave, which their environments then hold as well."""


@dataclass(frozen=True)
class Options:
    """What to make."""

    folder: Path = Path("build/peers")
    """Folder for the environments; what is there is kept where it works."""
    peers: tuple[str, ...] = ("deepsparse", "openvino", "onnxruntime")
    """Which of them."""


def python_of(folder: Path, peer: str) -> Path:
    """The interpreter of a peer's environment."""
    return folder.resolve() / peer / "bin" / "python"


def installed(folder: Path, peer: str) -> bool:
    """Say whether a peer can be imported."""
    python = python_of(folder, peer)
    return python.exists() and subprocess.run([python, "-c", f"import {peer}"], capture_output=True).returncode == 0


def interpreter(peer: str) -> str | None:
    """A Python that the peer has packages for: this one, or the newest one on the search path."""
    newest = NEWEST_PYTHON.get(peer)
    if newest is None or sys.version_info[:2] <= newest:
        return sys.executable
    names = (f"python3.{minor}" for minor in range(newest[1], OLDEST_PYTHON[1] - 1, -1))
    return next((found for found in map(shutil.which, names) if found), None)


def packages(peer: str) -> list[list[str]]:
    """What pip installs for a peer, in order: its list, Spokeshave where it is needed, what comes without the rest."""
    alone = HERE / f"{peer}-alone.txt"
    steps = [["-r", str(HERE / f"{peer}.txt")]]
    if peer in WITH_SPOKESHAVE:
        steps.append(["-c", str(ROOT / "constraints.txt"), str(ROOT)])
    return [*steps, ["--no-deps", "-r", str(alone)]] if alone.exists() else steps


def make(folder: Path, peer: str) -> str:
    """Make one environment; what to print about it."""
    if installed(folder, peer):
        return f"{peer}: is there already"
    python = interpreter(peer)
    if python is None:
        return f"{peer}: skipped, it needs Python {'.'.join(map(str, NEWEST_PYTHON[peer]))} or older on the search path"
    steps = (
        [python, "-m", "venv", "--clear", str(folder / peer)],
        *([str(python_of(folder, peer)), "-m", "pip", "install", "--quiet", *what] for what in packages(peer)),
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
            return f"{peer}: skipped, {reason[-1][:200]}"
    return f"{peer}: made" if installed(folder, peer) else f"{peer}: skipped, installed but it cannot be imported here"


def main(options: Options) -> None:
    """Make every environment."""
    for peer in options.peers:
        print(make(options.folder, peer), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
