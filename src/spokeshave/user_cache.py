"""The user's cache folder, and small measured facts kept in it: rates of this machine, tilings that were fastest.

What is kept can always be found again, so a file that is damaged, of another version or unwritable never stops a run:
it is measured anew, and replaced.
"""

import hashlib
import json
import os
import warnings
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import platformdirs

from spokeshave.errors import FileError, InvalidArgument
from spokeshave.files import atomic_write, reason

ENVIRONMENT = "SPOKESHAVE_CACHE"
_VERSION = 1


def cache_folder() -> Path:
    """Give the folder of downloads and measured facts (it need not exist): SPOKESHAVE_CACHE, else the system's usual
    place.

    Raises:
        InvalidArgument: where SPOKESHAVE_CACHE begins with the home folder of a user that does not exist.
    """
    if chosen := os.environ.get(ENVIRONMENT):
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise InvalidArgument(f"{ENVIRONMENT}={chosen}: no such home folder; name another folder") from error
    return platformdirs.user_cache_path("spokeshave")


def warn_unwritable(error: FileError) -> None:
    """Say that the cache cannot be written, once for each folder and process.

    Args:
        error: of the file that could not be written.
    """
    folder = cache_folder()
    if folder not in _warned():
        _warned().add(folder)
        warnings.warn(
            f"the cache {folder} cannot be written: {reason(error)}. Nothing else is wrong: the next run generates "
            f"code and measures this machine again. Let {ENVIRONMENT} name another folder",
            stacklevel=3,
        )


@cache
def _warned() -> set[Path]:
    return set()


class FactCache:
    """JSON values by key, in one file that all processes of a user share.

    Args:
        name: of the file, without its ending.

    Example:
        >>> import tempfile
        >>> os.environ["SPOKESHAVE_CACHE"] = tempfile.mkdtemp()
        >>> FactCache("example").keep({"peak": 1.5})
        >>> FactCache("example").get("peak")
        1.5
        >>> del os.environ["SPOKESHAVE_CACHE"]
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = Lock()
        self._facts: dict[str, Any] | None = None
        self._folder: Path | None = None

    @property
    def path(self) -> Path:
        """The file, which need not exist."""
        return cache_folder() / f"{self.name}.json"

    def get(self, key: str) -> Any:
        """The value of a key, None where there is none or the file was damaged."""
        with self._lock:
            if self._facts is None or self._folder != cache_folder():
                self._facts, self._folder = self._read(), cache_folder()
            return self._facts.get(key)

    def keep(self, facts: dict[str, Any]) -> None:
        """Add values; what other processes added meanwhile stays. A folder that cannot be written gives a warning."""
        with self._lock:
            # What could not be written before is known here only, and must not be measured again by this process.
            known = (self._facts or {}) if self._folder == cache_folder() else {}
            self._facts, self._folder = self._read() | known | facts, cache_folder()
            content = {"version": _VERSION, "digest": _digest(self._facts), "facts": self._facts}
            try:
                atomic_write(self.path, json.dumps(content, indent=1))
            except FileError as error:
                warn_unwritable(error)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_bytes())
            facts = content["facts"]
            sound = content["version"] == _VERSION and content["digest"] == _digest(facts) and isinstance(facts, dict)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}
        return facts if sound else {}


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
