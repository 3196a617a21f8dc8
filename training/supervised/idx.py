"""IDX files, in which MNIST and data sets like it come (http://yann.lecun.com/exdb/mnist/).

A file is a header of big-endian numbers (two zero bytes, the type of its numbers, the number of its
axes, the length of each axis), and then the numbers. It may be compressed by gzip. Nothing that a
header says is believed before it was checked: a small file may claim, or unpack to, any size.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from storage.files import DamagedError, FileError, open_regular

_BYTES = 0x08  # The type of unsigned bytes, of which all these data sets are.
_MAX_BYTES = 2**28
_PARTS = {"train": "train", "test": "t10k"}


def read_idx(path: Path, num_axes: int) -> NDArray[np.uint8]:
    """Read an IDX file of bytes.

    Args:
        path: the file; it is unpacked if its name ends in `.gz`.
        num_axes: the number of axes that it should have.

    Raises:
        DamagedError: If it is not what its header says, or not such a file.
        FileError: If it is not a regular file.
    """
    with open_regular(path) as file:
        packed = path.suffix == ".gz"
        content = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file
        try:
            return _read(path, content, num_axes)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DamagedError(f"{path} is no complete gzip file ({error})") from error


def _read(path: Path, file: BinaryIO, num_axes: int) -> NDArray[np.uint8]:
    magic = file.read(4)
    if magic != bytes((0, 0, _BYTES, num_axes)):
        raise DamagedError(
            f"{path} is no IDX file of bytes with {num_axes} axes: it begins with "
            f"{magic.hex(' ') or 'nothing'}, not 00 00 08 {num_axes:02x}"
        )
    header = file.read(4 * num_axes)
    if len(header) < 4 * num_axes:
        raise DamagedError(f"{path} ends within its header")
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4"))
    size = math.prod(shape)
    if not 0 < size <= _MAX_BYTES:
        raise DamagedError(f"{path} says that its shape is {shape}, which is empty or too large")
    content = file.read(size + 1)
    if len(content) != size:
        found = "more" if len(content) > size else f"{len(content):,}"
        raise DamagedError(
            f"{path} says that its shape is {shape}, {size:,} bytes, and has {found}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def find_idx(folder: Path, part: str, kind: str, num_axes: int) -> Path:
    """Return the path of one of the four files of a data set in the layout of MNIST.

    Args:
        folder: the folder.
        part: `train` or `test`.
        kind: `images` or `labels`.
        num_axes: the number of its axes.

    Raises:
        FileError: If it is not there.
    """
    names = [f"{_PARTS[part]}-{kind}{dot}idx{num_axes}-ubyte" for dot in "-."]
    paths = [folder / f"{name}{end}" for name in names for end in ("", ".gz")]
    if not folder.is_dir():
        raise FileError(f"there is no folder {folder}; --data names a folder of IDX files")
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        raise FileError(f"{folder} has no {names[0]} and no {names[0]}.gz")
    return found


def read_labelled(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the images and labels of one part of a data set in the layout of MNIST.

    Args:
        folder: the folder.
        part: `train` or `test`.

    Returns:
        (B, H, W) uint8 images, and (B,) uint8 labels.

    Raises:
        FileError: If a file is missing, damaged, or does not fit the other.
    """
    images_file = find_idx(folder, part, "images", 3)
    labels_file = find_idx(folder, part, "labels", 1)
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if len(images) != len(labels):
        raise DamagedError(
            f"{images_file} has {len(images):,} images, and {labels_file.name} "
            f"{len(labels):,} labels"
        )
    return images, labels
