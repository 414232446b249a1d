"""Files that are whole or absent: written under a temporary name, flushed to disk, renamed.

A process killed at any moment, or a disk that fills up, leaves the previous file as it was.
"""

import errno
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spokeshave.errors import FileError

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space, then run the same command again (nothing earlier was lost)",
    errno.EDQUOT: "the disk quota is used up: free some space, then run the same command again (nothing was lost)",
    errno.EACCES: "permission denied: choose a folder that you may write to",
    errno.EPERM: "permission denied: choose a folder that you may write to",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another path",
    errno.EEXIST: "there is a file of that name: choose another path",
    errno.EISDIR: "the path is a folder: name a file",
    errno.EFBIG: "the file is larger than this file system or a resource limit allows: choose another folder",
}


def file_error(path: Path, doing: str, error: OSError) -> FileError:
    """Turn an OSError into one that says what failed, on which path, and what to do."""
    remedy = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    return FileError(f"{doing} {path} failed: {remedy}")


@contextmanager
def atomic_path(path: Path | str, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; on leaving, flush it and rename it to `path`.

    Args:
        path: the file to be written. Its folder is made where it is missing.
        durable: false for what can be made again and is checked when it is read: it need not wait for the disk.

    Yields:
        The temporary path to write to.

    Raises:
        FileError: where the folder or the file cannot be written; `path` is then as it was before.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        yield temporary
        if durable:
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise file_error(path, "writing", error) from error
    finally:
        with suppress(OSError):  # the folder itself may be what is wrong, and that error is already on its way
            temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` whose process was killed while it wrote them."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        writer = leftover.name.split(".")[-2]
        if writer.isdecimal() and not _runs(int(writer)):
            leftover.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


def require_writable(folder: Path) -> None:
    """Make a folder where it is missing, and see that files can be made in it, before hours of work depend on it.

    Args:
        folder: that results will be written to.

    Raises:
        FileError: where they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise file_error(folder, "writing to", error) from error


def atomic_write(path: Path | str, content: bytes | str) -> None:
    """Write a whole file or nothing.

    Args:
        path: the file to be written.
        content: its bytes, or its text (encoded as UTF-8).

    Raises:
        FileError: where it cannot be written; an earlier file of that name is kept.
    """
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
