"""Archives of arrays (.npz) that a stranger may have written; nothing in them is unpickled."""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.files import DamagedError, FileError, open_regular, write_atomically

DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    RecursionError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
"""What NumPy and the standard library raise for archives that are truncated, foreign or corrupt."""
_ABOUT, _CHECKSUM = "about", "sha256"
_LONGEST_TEXT = 2**20  # Characters of the description.


def read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read an array from an archive, if its header does not claim more than there is.

    Raises:
        ValueError: If it does, or if it contains objects. Other errors are those in `DAMAGE`.
    """
    content = archive.read(f"{name}.npy")
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read_header(file)
    if dtype.hasobject or file.tell() + math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{name} is of another size than its header says")
    file.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def digest_of(arrays: Mapping[str, NDArray[Any]], about: str) -> str:
    """Return the SHA-256 of a description and of every array with its name, shape and type."""
    digest = hashlib.sha256(about.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} {array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class _Watched(io.BytesIO):
    """Calls a function before each piece that is written, which may raise.

    Args:
        watch: the function.
    """

    def __init__(self, watch: Callable[[], None]) -> None:
        super().__init__()
        self._watch = watch

    def write(self, piece: Any, /) -> int:
        """Write a piece."""
        self._watch()
        return super().write(piece)


def write_arrays(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    about: Mapping[str, Any],
    watch: Callable[[], None] = lambda: None,
) -> str:
    """Write arrays with a description, compressed and atomically.

    Args:
        path: the file.
        arrays: the arrays by name.
        about: further data, as JSON.
        watch: is called several times a second; if it raises, nothing is written.

    Returns:
        Their SHA-256, which is written with them.
    """
    text = json.dumps(about, sort_keys=True)
    checksum = digest_of(arrays, text)
    buffer = _Watched(watch)
    described = {_ABOUT: np.array(text), _CHECKSUM: np.array(checksum)}
    content: dict[str, Any] = {**described, **arrays}
    np.savez_compressed(buffer, **content)
    write_atomically(path, buffer.getvalue())
    return checksum


def read_arrays(path: Path, largest: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any], str]:
    """Read arrays that `write_arrays` wrote.

    Args:
        path: the file.
        largest: bytes of all arrays, and of the file, above which it is not read.

    Returns:
        The arrays by name, the description, and the SHA-256 of both.

    Raises:
        DamagedError: If it is not such a file, or its content is not what was written.
        FileError: If it is not a regular file, or is larger.
    """
    try:
        with open_regular(path, largest) as file, zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > largest:
                raise ValueError("it is too large")
            names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
            arrays = {name: read_array(archive, name) for name in names}
        text, checksum = (str(arrays.pop(name)) for name in (_ABOUT, _CHECKSUM))
        about = json.loads(text[:_LONGEST_TEXT])
        if digest_of(arrays, text) != checksum or not isinstance(about, dict):
            raise ValueError("its content is not what its checksum says")
    except FileError:
        raise
    except DAMAGE as error:
        raise DamagedError(f"{path} is damaged, or holds no arrays of doomgrad") from error
    return arrays, about, checksum
