"""Reads the palette and the names of maps from a WAD, Doom's container of lumps (named blobs)."""

from __future__ import annotations

import itertools
import os
import re
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.errors import EnvError

# More lumps than any known WAD has (Freedoom 2: 3,610); files that claim more are not WADs.
_MAX_LUMPS = 65_536


def read_directory(path: Path) -> list[tuple[str, int, int]]:
    """Return the lumps of a WAD as (name, offset in bytes, size in bytes), in file order.

    Raises:
        EnvError: If the file cannot be read or is not a WAD.
    """
    try:
        with path.open("rb") as file:
            magic, count, offset = struct.unpack("<4sii", file.read(12))
            if magic not in (b"IWAD", b"PWAD") or not 0 <= count <= _MAX_LUMPS:
                raise EnvError(f"{path} is not a WAD")
            file.seek(offset)
            entries = [struct.unpack("<ii8s", file.read(16)) for _ in range(count)]
            end = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        raise EnvError(f"there is no WAD at {path}") from None
    except (struct.error, OSError, ValueError):
        raise EnvError(f"{path} is not a WAD, or is damaged") from None
    if any(size > 0 and not 0 <= start <= end - size for start, size, _ in entries):
        raise EnvError(f"{path} is damaged: some of its lumps lie outside the file")
    return [
        (name.rstrip(b"\0").decode("ascii", "replace"), start, size)
        for start, size, name in entries
    ]


def read_palette(iwad: Path, wad: Path | None) -> NDArray[np.uint8]:
    """Read the colours of the palette from a PLAYPAL lump: the WAD's own one, or the IWAD's.

    Returns:
        (256, 3) uint8 RGB.

    Raises:
        EnvError: If neither has a palette.
    """
    for path in (wad, iwad):
        if path is None:
            continue
        for name, offset, size in read_directory(path):
            if name == "PLAYPAL" and size >= 768:
                with path.open("rb") as file:
                    file.seek(offset)
                    return np.frombuffer(file.read(768), np.uint8).reshape(256, 3)
    raise EnvError(f"{iwad} contains no palette (PLAYPAL); use an IWAD such as freedoom2.wad")


def maps(path: Path) -> list[str]:
    """Return the names of a WAD's maps in file order, in capitals.

    Names that are not a single word are skipped, because the engine receives them in commands.
    """
    lumps = read_directory(path)
    return [
        name.upper()
        for (name, _, _), (following, _, _) in itertools.pairwise(lumps)
        if following in ("THINGS", "TEXTMAP") and re.fullmatch(r"\w+", name, re.ASCII)
    ]


def first_map(path: Path) -> str:
    """Return the name of a WAD's first map.

    Raises:
        EnvError: If it contains no map.
    """
    names = maps(path)
    if not names:
        raise EnvError(f"{path} contains no map")
    return names[0]
