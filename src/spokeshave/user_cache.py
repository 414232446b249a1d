"""The user's cache folder, and small measured facts kept in it: rates of this machine, tilings that were fastest.

What is kept can always be found again, so a file that is damaged, of another version or unwritable never stops a run:
it is measured anew, and replaced.
"""

import hashlib
import json
import os
import warnings
from pathlib import Path
from threading import Lock
from typing import Any

import platformdirs

from spokeshave.errors import FileError
from spokeshave.files import atomic_write

ENVIRONMENT = "SPOKESHAVE_CACHE"
_VERSION = 1


def cache_folder() -> Path:
    """Give the folder of downloads and measured facts (it need not exist): SPOKESHAVE_CACHE, else the system's usual
    place.
    """
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("spokeshave")


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
            self._facts, self._folder = self._read() | facts, cache_folder()
            content = {"version": _VERSION, "digest": _digest(self._facts), "facts": self._facts}
            try:
                atomic_write(self.path, json.dumps(content, indent=1))
            except FileError as error:
                warnings.warn(f"{error}. Nothing else is wrong: it is measured again next time", stacklevel=2)

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
