"""Named model: a module, file or saved program and a factory, in one word, as typed on a command line.

Forms: `package.module:factory`, `path/to/file.py:factory`, or a `.pt2` file that `torch.export` wrote.

The factory is anything that returns an `nn.Module` when called without arguments (a class, a function), or the
module itself.
"""

import difflib
import importlib
import importlib.util
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from spokeshave.errors import InvalidArgument

FORMS = "write package.module:factory, path/to/file.py:factory, or a .pt2 file"


def load_model(named: str) -> nn.Module:
    """Make the model that a word on the command line names.

    Args:
        named: `package.module:factory` (the current folder is searched too), `file.py:factory`, or a `.pt2` file.

    Returns:
        The model.

    Raises:
        InvalidArgument: where there is no such module, file or factory, it fails, or it gives no `nn.Module`.

    Example:
        >>> type(load_model("torch.nn:Identity")).__name__
        'Identity'
    """
    if named.endswith(".pt2"):
        return _load_program(Path(named))
    where, colon, factory_name = named.rpartition(":")
    if not colon or not where or not factory_name:
        raise InvalidArgument(f"{named!r} names no model: {FORMS}")
    module = _import_file(Path(where)) if where.endswith(".py") else _import_module(where)
    made = getattr(module, factory_name, None)
    if made is None:
        public = [name for name in dir(module) if not name.startswith("_")]
        close = difflib.get_close_matches(factory_name, public, n=3)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InvalidArgument(f"{where} has no {factory_name!r}{meant}")
    if not isinstance(made, nn.Module):
        made = _call(made, named)
    if not isinstance(made, nn.Module):
        raise InvalidArgument(f"{named} gave a {type(made).__name__}, not a torch.nn.Module")
    return made


def _import_module(name: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(missing + "."):
            raise InvalidArgument(f"no module {missing!r} was found from {Path.cwd()} or the environment") from error
        raise InvalidArgument(f"importing {name} failed: it needs {missing!r}, which is not installed") from error
    except Exception as error:
        raise InvalidArgument(f"importing {name} failed: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidArgument(f"there is no file {path} (looked from {Path.cwd()})")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InvalidArgument(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InvalidArgument(f"importing {path} failed: {type(error).__name__}: {error}") from error
    return module


def _call(factory: Any, named: str) -> Any:
    if not callable(factory):
        raise InvalidArgument(f"{named} is a {type(factory).__name__}: expected an nn.Module or what returns one")
    try:
        return factory()
    except Exception as error:
        raise InvalidArgument(
            f"{named}() failed: {type(error).__name__}: {error}; the factory is called without arguments, "
            "so wrap yours in a function that gives them"
        ) from error


def _load_program(path: Path) -> nn.Module:
    if not path.is_file():
        raise InvalidArgument(f"there is no file {path} (looked from {Path.cwd()})")
    damaged = f"{path} is not a torch.export program, or it was truncated or damaged; export it again"
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise InvalidArgument(damaged)
    except (zipfile.BadZipFile, OSError) as error:
        raise InvalidArgument(f"{damaged} ({error})") from error
    try:
        return torch.export.load(path).module()
    except Exception as error:
        raise InvalidArgument(f"{path} is not a torch.export program: {type(error).__name__}: {error}") from error
