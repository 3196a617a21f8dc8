"""Reads and checks what is needed of a WAD, Doom's container of lumps (named blobs)."""

from __future__ import annotations

import functools
import itertools
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.errors import EnvError
from envs.files import open_regular

# More lumps than any known WAD has (Freedoom 2: 3,610); files that claim more are not WADs.
_MAX_LUMPS = 65_536
MAX_WAD_BYTES = 2**30  # Several times the largest known WADs.
_MAX_LUMP_BYTES = 2**26  # of a lump that is read here: a map's things, or a list of textures
# The lumps of a map, which follow the one with its name.
_OF_A_MAP = {
    *("THINGS", "LINEDEFS", "SIDEDEFS", "VERTEXES", "SEGS", "SSECTORS", "NODES", "SECTORS"),
    *("REJECT", "BLOCKMAP", "BEHAVIOR", "SCRIPTS", "TEXTMAP", "ZNODES", "DIALOGUE", "ENDMAP"),
}
_PLAYER = 1  # the type of the thing at which a single player starts
_MAX_TEXTURE = 2**24  # pixels, four times those of the largest textures in use
_TEXTURE = re.compile(
    rb"^[^\S\n]*(?:WallTexture|Texture|Sprite|Flat|Graphic|Define)\s+(?:Optional\s+)?"
    rb'("[^"\n]*"|[^\s,]+)\s*(?:,\s*)?(\d+)\s*(?:,\s*)?(\d+)',
    re.IGNORECASE | re.MULTILINE,
)


def read_directory(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return the lumps of a WAD as (name, offset in bytes, size in bytes), in file order.

    Raises:
        EnvError: If the file cannot be read or is not a WAD.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise EnvError(f"there is no WAD at {path}") from None
    except (OSError, ValueError):
        raise EnvError(f"{path} is not a WAD, or is damaged") from None
    return _read_directory(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _read_directory(path: Path, size: int, mtime_ns: int) -> tuple[tuple[str, int, int], ...]:
    try:
        with open_regular(path, MAX_WAD_BYTES) as file:
            magic, count, offset = struct.unpack("<4sii", file.read(12))
            if magic == b"PK\x03\x04":
                raise EnvError(
                    f"{path} is a .pk3 (a ZIP archive), which is not supported; a .wad is"
                )
            if magic not in (b"IWAD", b"PWAD") or not 0 <= count <= _MAX_LUMPS:
                raise EnvError(f"{path} is not a WAD")
            file.seek(offset)
            entries = [struct.unpack("<ii8s", file.read(16)) for _ in range(count)]
            end = file.seek(0, os.SEEK_END)
    except EnvError:
        raise
    except (struct.error, OSError, ValueError):
        raise EnvError(f"{path} is not a WAD, or is damaged") from None
    if any(size > 0 and not 0 <= start <= end - size for start, size, _ in entries):
        raise EnvError(f"{path} is damaged: some of its lumps lie outside the file")
    return tuple(
        (name.rstrip(b"\0").decode("ascii", "replace"), start, size)
        for start, size, name in entries
    )


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
                palette = _read(path, offset, 768)
                return np.frombuffer(palette, np.uint8).reshape(256, 3)
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


def check_start(path: Path, map_name: str) -> None:
    """Check that a single player can start in a map; the engine would end without a message.

    Raises:
        EnvError: If no thing of the map is the start of a single player.
    """
    lumps = read_directory(path)
    places = [
        i
        for i, ((name, *_), (following, *_)) in enumerate(itertools.pairwise(lumps))
        if name.upper() == map_name.upper() and following in ("THINGS", "TEXTMAP")
    ]
    if not places:
        return
    own = itertools.takewhile(lambda lump: lump[0] in _OF_A_MAP, lumps[places[-1] + 1 :])
    content = {name: (offset, size) for name, offset, size in own}
    if "TEXTMAP" in content:
        text = re.sub(
            rb"//[^\n]*|/\*.*?\*/", b"", _read(path, *content["TEXTMAP"]), flags=re.DOTALL
        )
        found = re.search(rb"\btype\s*=\s*\+?(0x)?0*1\s*;", text, re.IGNORECASE) is not None
    else:
        # Hexen's format, which has scripts: ten bytes before the type and eight after it.
        layout = "<10xh8x" if "BEHAVIOR" in content else "<6xh2x"
        things = _read(path, *content["THINGS"])
        things = things[: len(things) - len(things) % struct.calcsize(layout)]
        found = any(kind == _PLAYER for (kind,) in struct.iter_unpack(layout, things))
    if not found:
        raise EnvError(
            f"{path}: {map_name.upper()} has no start for a single player (thing {_PLAYER}); "
            "name a map that has one"
        )


def check_textures(path: Path) -> None:
    """Check that no texture is so large that the engine would need gigabytes to draw it.

    Raises:
        EnvError: If one is.
    """
    for name, width, height in _textures(path):
        if width * height > _MAX_TEXTURE:
            raise EnvError(
                f"{path}: the texture {name} has {width} x {height} pixels; at most "
                f"{_MAX_TEXTURE:,} are allowed"
            )


def _textures(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the name, width and height of each texture that a WAD composes."""
    for lump, offset, size in read_directory(path):
        if lump in ("TEXTURES", "HIRESTEX"):
            for name, width, height in _TEXTURE.findall(_read(path, offset, size)):
                yield name.strip(b'"').decode("ascii", "replace"), int(width[:9]), int(height[:9])
        elif lump in ("TEXTURE1", "TEXTURE2") and size >= 4:
            content = _read(path, offset, size)
            count = min(struct.unpack_from("<I", content)[0], size // 4 - 1)
            for start in struct.unpack_from(f"<{count}I", content, 4):
                if start + 16 <= size:
                    raw, width, height = struct.unpack_from("<8s4xHH", content, start)
                    yield raw.rstrip(b"\0").decode("ascii", "replace"), width, height


def _read(path: Path, offset: int, size: int) -> bytes:
    """Read a lump.

    Raises:
        EnvError: If it is too large, or the file has changed meanwhile.
    """
    if size > _MAX_LUMP_BYTES:
        raise EnvError(f"{path} is damaged: one of its lumps has {size:,} bytes")
    try:
        with open_regular(path, MAX_WAD_BYTES) as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise EnvError(f"{path} cannot be read: {error.strerror}") from error
