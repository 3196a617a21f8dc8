"""Reading and writing files: atomically, within bounds, and never by unpickling.

A file is replaced only by a complete new one. A file that is read may come from a stranger, and a
folder that is written to may contain a stranger's links: those are replaced, never followed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, get_type_hints

import msgspec

T = TypeVar("T")

_TEMPORARY = ".doomgrad-{}.tmp"
_LEFTOVERS = (".doomgrad-*.tmp", ".*.[0-9]*.tmp", ".progress.csv.tmp", ".replay.mp4.tmp")
_MOST_BITS = 63  # Of a whole number in a file.
_FULL_BLOCK = 4096  # Bytes; a disk without this much space is full.


class FileError(ValueError):
    """A file is not what it should be: the message is one line that says why."""


class DamagedError(FileError):
    """A file is not as it was written, or does not exist."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file by a new one once that is complete: a reader finds the old or the new file.

    Args:
        path: the file. Missing folders are made; a link is replaced, not followed.

    Yields:
        The path of a new, empty file to be written to. It has a random name in the same folder, and
        is locked as long as it is written, see `remove_leftovers`.

    Raises:
        OSError: If it cannot be written; the error names `path`.
    """
    temporary = path.with_name(_TEMPORARY.format(secrets.token_hex(8)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(temporary, flags, 0o666)
        try:
            with contextlib.suppress(OSError):  # Some file systems have no locks.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield temporary
            os.fsync(file)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            os.close(file)
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _sync(folder: Path) -> None:
    # Without this, a new name in the folder may not survive a loss of power.
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by a complete new one; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files in a folder that programs left when they were killed.

    Files that are still being written are locked, and stay.
    """
    for leftover in (file for pattern in _LEFTOVERS for file in folder.glob(pattern)):
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(leftover, flags)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()
            finally:
                os.close(file)


def check_writable(folder: Path) -> None:
    """Check that files can be written into a folder, which need not exist yet.

    Raises:
        FileError: If they cannot.
    """
    made: list[Path] = []
    try:
        if folder.is_file():
            raise FileError(f"{folder} is a file; name a folder")
        for parent in (folder, *folder.parents):
            if parent.exists():
                break
            made.append(parent)
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / _TEMPORARY.format(secrets.token_hex(8))
        try:
            probe.write_bytes(bytes(_FULL_BLOCK))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(
            f"nothing can be written into {folder} ({error.strerror}); name another folder, or "
            "make room there"
        ) from error
    finally:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def check_no_link(folder: Path) -> None:
    """Check that a folder inside a run folder is not a link to another place.

    Raises:
        FileError: If it is one.
    """
    if folder.is_symlink():
        raise FileError(
            f"{folder} is a link to another place, where no file is written or removed; replace it "
            "by a folder"
        )


def open_regular(path: Path, largest: float = math.inf) -> BinaryIO:
    """Open a regular file that a stranger may have written, for reading.

    Args:
        path: the file, or a link to one.
        largest: size in bytes above which it is not opened.

    Raises:
        DamagedError: If there is no such file.
        FileError: If it is a device, a FIFO or a folder, or larger, or cannot be read.
    """
    try:
        # A FIFO is opened without waiting for a writer.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DamagedError(f"there is no file at {path}") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:  # A null byte, or a lone surrogate.
        raise FileError(f"{path} is not the name of a file") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"{path} is not a regular file")
        if status.st_size > largest:
            raise FileError(f"{path} is too large to be what its name says")
        return os.fdopen(file, "rb")
    except BaseException:
        os.close(file)
        raise


def read_regular(path: Path, largest: int) -> bytes:
    """Return the content of a regular file; see `open_regular`."""
    try:
        with open_regular(path, largest) as file:
            return file.read(largest)
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror})") from error


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
    content = read_regular(path, largest)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged") from error
    if not isinstance(found, dict):
        raise FileError(f"{path} is damaged")
    return found


def read_kept(path: Path, largest: int, about: Mapping[str, Any]) -> dict[str, Any]:
    """Read what an earlier run of a command has finished, so that it need not be done again.

    Args:
        path: the JSON file.
        largest: size in bytes above which it is not read.
        about: what the file must hold, so that it is about the same.

    Returns:
        Its content; nothing if there is no such file, if it is damaged, or if it is about something
        else.
    """
    try:
        kept = read_json(path, largest)
    except FileError:
        return {}
    return kept if all(kept.get(name) == value for name, value in about.items()) else {}


def decode(kind: type[T], data: Any) -> T:
    """Convert parsed JSON to a dataclass, strictly.

    Unknown keys, wrong types, numbers of more than 64 bits and text that cannot be the name of a
    file are refused.

    Raises:
        FileError: If the data does not fit.
    """
    try:
        _refuse_unknown_keys(kind, data)
        _refuse_unusual(data)
        return msgspec.convert(data, kind, dec_hook=_decode_path)
    except FileError:
        raise
    except (msgspec.ValidationError, ValueError, TypeError, RecursionError) as error:
        raise FileError(str(error)) from None


def _decode_path(kind: type[Any], data: Any) -> Any:
    """Convert text to a path, which msgspec does not know."""
    if kind is not Path or not isinstance(data, str):
        raise TypeError(f"expected {kind.__name__}, got {data!a:.60}")
    return Path(data)


def _refuse_unknown_keys(kind: Any, data: Any) -> None:
    if not (is_dataclass(kind) and isinstance(data, Mapping)):
        return
    types = get_type_hints(kind)
    known = {field.name for field in fields(kind)}
    for key, value in data.items():
        if key not in known:
            raise FileError(f"there is no field {key!a:.60}")
        _refuse_unknown_keys(types[key], value)


def _refuse_unusual(data: Any) -> None:
    """Refuse numbers and text that are valid JSON, but that later code could not represent."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            _refuse_unusual(key)
            _refuse_unusual(value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            _refuse_unusual(value)
    elif isinstance(data, int) and data.bit_length() > _MOST_BITS:
        raise FileError("a number has more than 64 bits")
    elif isinstance(data, str):
        try:
            valid = b"\0" not in os.fsencode(data)
        except UnicodeEncodeError:
            valid = False
        if not valid:
            raise FileError(f"{data!a:.60} is not valid text")
