"""spokeshave doctor: what this installation can do: versions, CPU, threads, data sets found, optional parts.

It reports and never fails: a part that is missing comes with the command that brings it.
"""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from spokeshave.optional import EXTRAS, available

VECTOR_BITS = {"avx512f": 512, "avx2": 256, "avx": 256, "sse2": 128, "asimd": 128, "neon": 128}
"""CPU feature -> bits of its vector registers, widest first."""


def command(arguments: list[str]) -> int:
    """Print the state of the installation.

    Args:
        arguments: the words after `doctor`.

    Returns:
        0, whatever is missing.
    """

    def options(data_dir: Path | None = None) -> Path | None:
        """Say what this installation can do.

        Args:
            data_dir: where data sets are looked for, before SPOKESHAVE_DATA.
        """
        return data_dir

    data_dir = tyro.cli(options, prog="spokeshave doctor", args=arguments)
    console = Console()
    for title, rows in (
        ("versions", version_rows()),
        ("this machine", machine_rows()),
        ("data sets", data_rows(data_dir)),
        ("optional parts", optional_rows()),
    ):
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 2)
        )
        table.add_column()
        table.add_column(overflow="fold")  # an address or a path is of no use when it is cut off
        for name, state in rows:
            table.add_row(name, state)
        console.print(table)
    return 0


def version_rows() -> list[tuple[str, str]]:
    """Name the versions of Python, Spokeshave and what it is built on."""
    names = sorted(
        {_requirement_name(line) for line in metadata.requires("spokeshave") or () if "extra ==" not in line}
    )
    rows = [("python", f"{platform.python_version()} at {sys.prefix}"), ("spokeshave", metadata.version("spokeshave"))]
    return rows + [(name, _version(name) or "missing: pip install spokeshave again") for name in names]


def machine_rows() -> list[tuple[str, str]]:
    """Describe the processor, its vector width, the threads torch uses, and a GPU where there is one."""
    import torch

    model, features = cpu_model_and_features()
    widest = next((feature for feature in VECTOR_BITS if feature in features), None)
    width = f"{VECTOR_BITS[widest]} bits ({widest})" if widest else "unknown"
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (a CPU is enough for everything)"
    return [
        ("system", f"{platform.system()} {platform.machine()}"),
        ("processor", model),
        ("vector width", width),
        ("torch's CPU path", torch.backends.cpu.get_cpu_capability()),
        ("cores this process may use", str(usable_cores())),
        ("torch threads", f"{torch.get_num_threads()} (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')})"),
        ("GPU", gpu),
    ]


def cpu_model_and_features() -> tuple[str, frozenset[str]]:
    """Read the processor's name and feature flags from the system.

    Returns:
        The name, and the flags in lower case (empty where the system does not tell).
    """
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return platform.processor() or platform.machine(), frozenset({"neon"} & {_arm_feature()})
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    flags = fields.get("flags", fields.get("features", "")).lower().split()
    return fields.get("model name") or platform.machine(), frozenset(flags)


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def data_rows(data_dir: Path | None) -> list[tuple[str, str]]:
    """Say for every data set where it was found.

    Args:
        data_dir: where to look first; then SPOKESHAVE_DATA and the cache are searched.
    """
    from spokeshave import data
    from spokeshave.errors import DataError

    rows = [("SPOKESHAVE_DATA", os.environ.get("SPOKESHAVE_DATA") or "unset")]
    for name, source in data.DATASETS.items():
        try:
            place = data.locate(name, data_dir)
        except DataError as error:
            rows.append((name.value, str(error)))
            continue
        absent = "downloaded at first use" if source.remotes else f"get it from {source.page}"
        rows.append((name.value, str(place or (f"not here: {absent}" if source.folders else "embedded"))))
    return rows


def optional_rows() -> list[tuple[str, str]]:
    """Say for every optional part whether it is installed, or how to install it."""
    rows = []
    for module, extra in EXTRAS.items():
        version = _version(module.replace("_", "-")) or "installed"
        rows.append((module, version if available(module) else f"missing: pip install 'spokeshave[{extra}]'"))
    return rows


def _arm_feature() -> str:
    return "neon" if platform.machine().lower() in ("arm64", "aarch64") else ""


def _requirement_name(line: str) -> str:
    return line.split(";")[0].split(">")[0].split("=")[0].split("<")[0].split("[")[0].strip()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
