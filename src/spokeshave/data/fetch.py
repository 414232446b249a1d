"""Downloads a data set from its official address, checks it, and puts it in place as a whole or not at all.

Files arrive in a staging folder beside their destination and are moved there once all have the right checksum, so a
killed download leaves nothing half done, and the next call goes on with the files that were complete. Processes that
want the same set at once (as under torchrun) wait for the first of them.
"""

import errno
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from spokeshave.data.data_folders import ENVIRONMENT, data_folders, holds
from spokeshave.data.sources import Remote, Source
from spokeshave.errors import DataError, FileError
from spokeshave.files import file_error

TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 16
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class RichProgressBar:
    """Shows a download in the terminal; has the members that pooch expects of a progress bar.

    Args:
        label: shown before the bar.
    """

    def __init__(self, label: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),  # standard output belongs to the command's own answer
        )
        self._task = self._progress.add_task(label, total=None)
        self._started = False

    @property
    def total(self) -> float | None:
        """Bytes to come; None while unknown."""
        return self._progress.tasks[0].total

    @total.setter
    def total(self, size_bytes: int) -> None:
        self._progress.update(self._task, total=size_bytes or None)
        if not self._started:
            self._progress.start()
            self._started = True

    def update(self, size_bytes: int) -> None:
        """Add bytes that have come."""
        self._progress.update(self._task, advance=size_bytes)

    def reset(self) -> None:
        """Go back to none."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Leave the terminal as it is."""
        self._progress.stop()


def download(remote: Remote, folder: Path) -> Path:
    """Download one file and check it, or keep it where it is there already and has the right checksum.

    Args:
        remote: the file.
        folder: to put it in.

    Returns:
        Its path.

    Raises:
        DataError: where no address gave the right file; the message names each and what went wrong.
    """
    import pooch  # brings in requests, which `import spokeshave` should not cost

    pooch.get_logger().setLevel("WARNING")
    failures = []
    for url in remote.urls:
        bar = RichProgressBar(remote.name)
        try:
            # Any: pooch's annotations allow neither a progress bar of one's own nor its own downloader.
            downloader: Any = pooch.HTTPDownloader(timeout=TIMEOUT_S, chunk_size=_CHUNK_BYTES)
            downloader.progressbar = bar
            return Path(pooch.retrieve(url, f"md5:{remote.md5}", remote.name, folder, downloader=downloader))
        except Exception as error:  # requests, urllib3, ssl, and pooch's ValueError for a wrong checksum
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise file_error(folder / remote.name, "writing", error) from error
            failures.append(f"{url}: {type(error).__name__}: {' '.join(str(error).split())[:400]}")
        finally:
            bar.close()
    raise DataError(f"{remote.name} could not be downloaded:\n  " + "\n  ".join(failures))


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz; a member that would land outside `folder` is refused, and nothing of the archive is used.

    Args:
        archive: the file.
        folder: to unpack into.

    Raises:
        DataError: where the archive is damaged, or a member has an unsafe path, link or mode.
    """
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                _require_harmless(member, folder, archive)
            if hasattr(tarfile, "data_filter"):
                tar.extractall(folder, filter="data")
            else:  # before Python 3.11.4; what the filter refuses beside, such as modes, does no harm to a data set
                tar.extractall(folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}; remove it and download it again") from error


def _require_harmless(member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    """Refuse a member that is no plain file or folder, or that would lie outside the folder."""
    root = folder.resolve()
    inside = (root / member.name).resolve()
    if Path(member.name).is_absolute() or not inside.is_relative_to(root):
        reason = f"{member.name!r} would be unpacked outside of the folder"
    elif not (member.isreg() or member.isdir()):
        reason = f"{member.name!r} is neither a file nor a folder"
    else:
        return
    raise DataError(
        f"{archive} was refused: {reason}; a genuine archive has no such member, so remove it and get it from a source "
        "you trust"
    )


@contextmanager
def only_one_process(lock: Path) -> Iterator[None]:
    """Let one process at a time in; the lock goes with the process, so a killed one leaves nothing to clear."""
    with lock.open("w") as held:
        if os.name == "posix":
            import fcntl  # not on Windows, where two processes at once would download twice

            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def fetch(source: Source, data_dir: Path | str | None = None, allowed: bool = True) -> Path:
    """Download a set into the first of the data folders.

    Args:
        source: the set; it is nowhere on this machine yet.
        data_dir: as the user gave it.
        allowed: False only says what is missing.

    Returns:
        The folder with the files.

    Raises:
        DataError: where downloading is not allowed or fails, or the set has to be got by hand; says from where, and
            which layout a copy of the set must have.
        FileError: where the folder cannot be written.
    """
    searched = tuple(data_folders(data_dir))
    remedy = (
        f"to use a copy, give the folder that holds {source.layout} as --data-dir (data_dir in Python) or in the "
        f"environment variable {ENVIRONMENT}"
    )
    if not source.remotes:
        raise DataError(
            f"{source.title} is not in {', '.join(map(str, searched))}, and is not downloaded, as its checksum is not "
            f"known: get its files from {source.page} and put them in {searched[0] / source.folders[0]}; {remedy}"
        )
    if not allowed:
        raise DataError(
            f"{source.title} is not in {', '.join(map(str, searched))}, and was not downloaded "
            f"because that was switched off; {remedy}"
        )
    destination = searched[0] / source.folders[0]
    downloads = searched[0] / ".downloads"
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        with only_one_process(downloads / f"{source.name.value}.lock"):
            if not holds(destination, source, shared=False):  # another process may have been first
                try:
                    _download_to(destination, source, downloads / source.name.value)
                except DataError as error:
                    raise DataError(f"{source.title}: {error}\n{remedy}") from error
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise file_error(destination, f"downloading {source.title} to", error) from error
    return destination


def _download_to(destination: Path, source: Source, staging: Path) -> None:
    staging.mkdir(exist_ok=True)
    files = [download(remote, staging) for remote in source.remotes]
    ready = staging
    for remote, file in zip(source.remotes, files, strict=True):
        if remote.unpacks_to:
            shutil.rmtree(staging / "unpacked", ignore_errors=True)
            unpack(file, staging / "unpacked")
            ready = staging / "unpacked" / remote.unpacks_to
            if not ready.is_dir():
                raise DataError(f"expected a folder {remote.unpacks_to} in {file}, found none; remove it and try again")
    destination.parent.mkdir(parents=True, exist_ok=True)
    if destination.is_dir():
        destination.rmdir()  # an empty one, or `holds` would have called the set incomplete
    ready.rename(destination)
    shutil.rmtree(staging, ignore_errors=True)
