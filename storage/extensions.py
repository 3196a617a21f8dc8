"""Importing modules of the user's own, which add agents, encoders, memories and objectives.

Such a module registers them when it is imported: `ENCODERS["mine"] = (MineConfig, Mine)`. Policy
files name the modules of their training; they are imported only if the user trusts the file.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from storage.files import FileError


def import_extensions(names: Sequence[str], folder: Path | None = None) -> tuple[str, ...]:
    """Import modules; one that is imported already is not imported again.

    Args:
        names: paths of .py files, or names of installed modules.
        folder: where a file is searched for if it is not at its path, before the current folder.

    Returns:
        The modules as they are stored: absolute paths of files, and names of modules.

    Raises:
        FileError: If there is no such module, or importing it fails.
    """
    return tuple(_import_one(name, folder) for name in names)


def _import_one(name: str, folder: Path | None) -> str:
    path = _find(Path(name), folder) if name.endswith(".py") else None
    if name.endswith(".py") and path is None:
        raise FileError(f"there is no {name} to import")
    try:
        if path is None:
            importlib.import_module(name)
        elif not any(getattr(m, "__file__", None) == str(path) for m in [*sys.modules.values()]):
            _import_file(path)
    except Exception as error:  # A user's code can raise anything.
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            reason = "it is not installed; name a file as my.py"
        else:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FileError(f"{name} cannot be imported: {reason}") from error
    return name if path is None else str(path)


def _find(file: Path, folder: Path | None) -> Path | None:
    """Return the first place where a file exists."""
    places = [file.expanduser(), *([folder / file.name] if folder else []), Path(file.name)]
    return next((place.resolve() for place in places if place.is_file()), None)


def _import_file(path: Path) -> None:
    # A file may be called like a module that is imported already.
    name = path.stem if path.stem not in sys.modules else f"{path.stem} ({path})"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
