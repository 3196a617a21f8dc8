"""Reading what we need from a WAD, Doom's container of lumps: its palette and its maps."""

from __future__ import annotations

import itertools
import os
import re
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.errors import EnvError

# More lumps than any known WAD has (Freedoom 2: 3,610); a file that claims more is not one.
_MAX_LUMPS = 65_536


def read_directory(path: Path) -> list[tuple[str, int, int]]:
    """List the lumps of a WAD as (name, offset in bytes, size in bytes), in file order.

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
        raise EnvError(f"{path} is damaged: it ends before its last lump")
    return [
        (name.rstrip(b"\0").decode("ascii", "replace"), start, size)
        for start, size, name in entries
    ]


def read_palette(iwad: Path, wad: Path | None) -> NDArray[np.uint8]:
    """Read the colours that palette indices stand for, from the WAD's own PLAYPAL if it has one.

    Returns:
        (256, 3) uint8 RGB.
    """
    for path in (wad, iwad):
        if path is None:
            continue
        for name, offset, size in read_directory(path):
            if name == "PLAYPAL" and size >= 768:
                with path.open("rb") as file:
                    file.seek(offset)
                    return np.frombuffer(file.read(768), np.uint8).reshape(256, 3)
    raise EnvError(f"{iwad} holds no palette (PLAYPAL); name an IWAD such as freedoom2.wad")


def maps(path: Path) -> list[str]:
    """Name the maps of a WAD in file order, in capitals.

    A name that is more than a word is passed over: the engine is told names within commands.
    """
    lumps = read_directory(path)
    return [
        name.upper()
        for (name, _, _), (following, _, _) in itertools.pairwise(lumps)
        if following in ("THINGS", "TEXTMAP") and re.fullmatch(r"\w+", name, re.ASCII)
    ]


def first_map(path: Path) -> str:
    """Name the first map of a WAD.

    Raises:
        EnvError: If it holds none.
    """
    names = maps(path)
    if not names:
        raise EnvError(f"{path} holds no map")
    return names[0]
