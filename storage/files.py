"""Reading and writing files: atomically, within bounds, and never by unpickling.

A file is replaced only by a complete new one. A file that is read may come from a stranger.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

T = TypeVar("T")


class FileError(ValueError):
    """A file is not what it should be: the message is one line that says why."""


class DamagedError(FileError):
    """A file is not as it was written, or does not exist."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by a complete new one: a reader finds the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # Without this, the new name may not survive a loss of power.
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Replace a file by JSON, indented; what JSON does not have is written as text."""
    write_atomically(path, (json.dumps(content, indent=2, default=str) + "\n").encode())


def read_json(path: Path, largest: int) -> dict[str, Any]:
    """Read a JSON object that a stranger may have written.

    Args:
        path: the file.
        largest: size in bytes above which it is not read.

    Raises:
        FileError: If it is larger, or is not a JSON object.
    """
    try:
        if path.stat().st_size > largest:
            raise FileError(f"{path} is too large to be what its name says")
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} is damaged") from error


def decode(kind: type[T], data: Any) -> T:
    """Convert parsed JSON to a dataclass, strictly: unknown keys and wrong types are refused.

    Raises:
        FileError: If the data does not fit.
    """
    _refuse_unknown_keys(kind, data)
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise FileError(str(error)) from None


def _refuse_unknown_keys(kind: Any, data: Any) -> None:
    if not (is_dataclass(kind) and isinstance(data, Mapping)):
        return
    types = get_type_hints(kind)
    known = {field.name for field in fields(kind)}
    for key, value in data.items():
        if key not in known:
            raise FileError(f"there is no field {key!r}")
        _refuse_unknown_keys(types[key], value)
