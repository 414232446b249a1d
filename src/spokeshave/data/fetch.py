"""Downloads a data set from its official address, checks it, and puts it in place as a whole or not at all.

Files arrive in a staging folder beside their destination and are moved there once all have the right checksum, so a
killed download leaves nothing half done, and the next call goes on with the files that were complete.
"""

import shutil
import tarfile
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from spokeshave.data.locate import ENVIRONMENT, data_folders
from spokeshave.data.sources import Remote, Source
from spokeshave.errors import DataError
from spokeshave.files import file_error

TIMEOUT_S = 30


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
            path = pooch.retrieve(
                url,
                known_hash=f"md5:{remote.md5}",
                fname=remote.name,
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT_S, chunk_size=1 << 16),  # pyright: ignore[reportArgumentType] pooch takes any object with this protocol
            )
            return Path(path)
        except Exception as error:  # noqa: BLE001  requests, urllib3, ssl, and pooch's own ValueError for a wrong checksum
            failures.append(f"{url}: {_reason(error)}")
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
            tar.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise DataError(
            f"{archive} was refused: {error}; a genuine archive has no such member, so remove it and get it from a "
            "source you trust"
        ) from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}; remove it and download it again") from error


def fetch(source: Source, data_dir: Path | str | None = None, allowed: bool = True) -> Path:
    """Download a set into the first of the data folders.

    Args:
        source: the set; nothing of it is on this machine yet.
        data_dir: as the user gave it.
        allowed: False only says what is missing.

    Returns:
        The folder with the files.

    Raises:
        DataError: where downloading is not allowed or fails; says which layout a copy of the set must have.
        FileError: where the folder cannot be written.
    """
    searched = data_folders(data_dir)
    remedy = (
        f"to use a copy, give the folder that holds {source.layout} as --data-dir (data_dir in Python) or in the "
        f"environment variable {ENVIRONMENT}"
    )
    if not allowed or not source.remotes:
        raise DataError(
            f"{source.title} was not found in {', '.join(map(str, searched))}, and was not downloaded "
            f"because that was switched off; {remedy}"
        )
    root = searched[0]
    destination = root / source.folders[0]
    staging = root / ".downloads" / source.name.value
    try:
        staging.mkdir(parents=True, exist_ok=True)
        try:
            paths = [download(remote, staging) for remote in source.remotes]
        except DataError as error:
            raise DataError(f"{source.title}: {error}\n{remedy}") from error
        ready = _ready_folder(source, staging)
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.is_dir() and not any(destination.iterdir()):
            destination.rmdir()
        ready.rename(destination)
        for path in paths:
            path.unlink(missing_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise file_error(destination, f"downloading {source.title} to", error) from error
    return destination


def _ready_folder(source: Source, staging: Path) -> Path:
    """Give the folder to move into place: the unpacked one of an archive, or the downloaded files themselves."""
    packed = [remote for remote in source.remotes if remote.unpacks_to]
    if not packed:
        return staging
    unpacked = staging / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    for remote in packed:
        unpack(staging / remote.name, unpacked)
    inner = unpacked / str(packed[0].unpacks_to)
    if not inner.is_dir():
        raise DataError(f"{source.title}: expected a folder {inner.name} in the archive, found none; download it again")
    return inner


def _reason(error: Exception) -> str:
    """Give the innermost cause in one line: connection errors wrap each other four deep."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
