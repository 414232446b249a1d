"""Files that are whole or absent: written under a temporary name, flushed to disk, renamed.

A process killed at any moment, or a disk that fills up, leaves the previous file as it was.
"""

import errno
import glob
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from spokeshave.errors import FileError

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, then run the same command again (nothing earlier was lost)"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, then run the same command again (nothing was lost)"),
    errno.EACCES: ("permission denied", "choose a folder that you may write to"),
    errno.EPERM: ("permission denied", "choose a folder that you may write to"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
    errno.EEXIST: ("there is a file of that name", "choose another path"),
    errno.EISDIR: ("the path is a folder", "name a file"),
    errno.ESPIPE: ("the path is a device or a pipe, which cannot be replaced as a whole", "name a file"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "choose a shorter one"),
    errno.EFBIG: ("the file is larger than this file system or a resource limit allows", "choose another folder"),
}
"""What the system says in a number -> what is wrong, and what to do."""
_PROBE_BYTES = 1 << 14


def reason(error: OSError) -> str:
    """What is wrong, in a few words.

    Example:
        >>> reason(OSError(errno.ENOSPC, "No space left on device"))
        'the disk is full'
    """
    return _REASONS.get(error.errno or 0, (error.strerror or str(error),))[0]


def file_error(path: Path, doing: str, error: OSError) -> FileError:
    """Turn an OSError into one that says what failed, on which path, and what to do."""
    remedy = _REASONS.get(error.errno or 0, ("", ""))[1]
    found = FileError(f"{doing} {path} failed: {reason(error)}{f': {remedy}' if remedy else ''}")
    found.errno = error.errno
    return found


@contextmanager
def atomic_path(path: Path | str, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; on leaving, flush it and rename it to `path`.

    Args:
        path: the file to be written; of a link, the file that it leads to. Its folder is made where it is missing.
        durable: false for what can be made again and is checked when it is read: it need not wait for the disk.

    Yields:
        The temporary path to write to.

    Raises:
        FileError: where the folder or the file cannot be written; `path` is then as it was before.
    """
    path = Path(path)
    path = path.resolve() if path.is_symlink() else path
    # Threads of one process may write the same file at the same time, as processes may.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
    try:
        if path.exists() and not path.is_file():  # renaming a file over /dev/null would take it from everybody
            raise OSError(errno.EISDIR if path.is_dir() else errno.ESPIPE, "not a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        yield temporary
        if durable:
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        if isinstance(error, FileError):
            raise
        raise file_error(path, "writing", _system_error(error)) from error
    finally:
        with suppress(OSError):  # the folder itself may be what is wrong, and that error is already on its way
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove temporary files whose process was killed while it wrote them.

    Args:
        folder: that they lie in.
        name: of the file that was written; None for any.
    """
    for leftover in folder.glob(f".{'*' if name is None else glob.escape(name)}.*.tmp"):
        writer = leftover.name.split(".")[-2].partition("-")[0]
        if writer.isdecimal() and not _runs(int(writer)):
            leftover.unlink(missing_ok=True)


def _system_error(error: OSError | SafetensorError) -> OSError:
    """The error of the system; safetensors hides its number in a text."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), str(error)) if number else OSError(str(error))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


def require_writable(folder: Path) -> None:
    """Make a folder where it is missing, and see that it takes a small file, before hours of work depend on it.

    Args:
        folder: that results will be written to.

    Raises:
        FileError: where they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))  # a full disk still takes empty files
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
