"""What the commands that map a network to hardware have in common: their files, test images, name and settings."""

from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spokeshave.errors import InvalidArgument

if TYPE_CHECKING:
    from spokeshave.data import Split


def require_files(**paths: Path | None) -> None:
    """See that the files which options name are there.

    Args:
        paths: by the option, without its dashes; None where it was not given.

    Raises:
        InvalidArgument: names the option and the file that is missing.
    """
    for option, path in paths.items():
        if path is not None and not path.is_file():
            raise InvalidArgument(f"--{option.replace('_', '-')} {path}: no such file")


def some_images(test: "Split", count: int) -> "Split":
    """So many test images, as many of each class as the split has in proportion; always the same ones.

    Args:
        test: to choose from.
        count: how many; 0 for all.
    """
    count = min(len(test), count or len(test))
    return test if count == len(test) else test.hold_out(count, seed=0)[1]


def short_name(model: str) -> str:
    """What a model is called on a page.

    Args:
        model: as typed: package.module:factory, file.py:factory or a file.

    Example:
        >>> short_name("my_package.nets:make_net"), short_name("nets/small.py:Small"), short_name("nets/big.pt2")
        ('make_net', 'Small', 'big.pt2')
    """
    return Path(model.rpartition("/")[2]).name.rpartition(":")[2]


def shown_settings(options: object, left_out: Collection[str] = ()) -> dict[str, Any]:
    """Options as a page shows them: without places of files, and without those that were not given.

    Args:
        options: a dataclass of options.
        left_out: names of further ones that say nothing.
    """
    return {
        name: value.value if isinstance(value, Enum) else list(value) if isinstance(value, tuple) else value
        for name, value in vars(options).items()
        if name not in left_out and name != "model" and not isinstance(value, Path) and value not in ((), None)
    }
