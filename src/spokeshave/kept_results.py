"""Results kept in a run's folder: what was measured once is read again by a run that is resumed.

A result stands beside a key, all that it depends on. One of another key, or in a damaged file, is measured anew.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from spokeshave.files import atomic_write

Result = TypeVar("Result")


def kept_or_made(
    path: Path,
    key: dict[str, Any],
    make: Callable[[], Result],
    to_json: Callable[[Result], Any],
    from_json: Callable[[Any], Result],
) -> Result:
    """What a file holds under a key; else it is made, and the file written.

    Args:
        path: of the file, JSON.
        key: JSON values.
        make: the result.
        to_json: of the result, what the file takes.
        from_json: the other way; may raise `ValueError`, `KeyError` or `TypeError` for what it cannot be.

    Raises:
        FileError: where the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "found.json"
        >>> [kept_or_made(path, {"seed": seed}, lambda seed=seed: seed, int, int) for seed in (1, 1, 2)]
        [1, 1, 2]
    """
    key = json.loads(json.dumps(key))  # as the file gives it back: tuples are lists
    try:
        content = json.loads(path.read_text())
        if content["key"] == key:
            return from_json(content["result"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    result = make()
    atomic_write(path, json.dumps({"key": key, "result": to_json(result)}))
    return result
