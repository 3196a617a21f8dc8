"""A Doom map with one room, written as a WAD in plain Python."""

from __future__ import annotations

import struct
from pathlib import Path

# A square room with the player at its centre, facing east, in the UDMF text format.
ROOM = """
namespace = "zdoom";
thing {{ x = 0.0; y = 0.0; angle = 0; type = 1; {skills} }}
{things}
vertex {{ x = -256.0; y = -256.0; }}
vertex {{ x = -256.0; y = 256.0; }}
vertex {{ x = 256.0; y = 256.0; }}
vertex {{ x = 256.0; y = -256.0; }}
linedef {{ v1 = 0; v2 = 1; sidefront = 0; blocking = true; }}
linedef {{ v1 = 1; v2 = 2; sidefront = 1; blocking = true; }}
linedef {{ v1 = 2; v2 = 3; sidefront = 2; blocking = true; }}
linedef {{ v1 = 3; v2 = 0; sidefront = 3; blocking = true; }}
sidedef {{ sector = 0; texturemiddle = "STARTAN2"; }}
sidedef {{ sector = 0; texturemiddle = "STARTAN2"; }}
sidedef {{ sector = 0; texturemiddle = "STARTAN2"; }}
sidedef {{ sector = 0; texturemiddle = "STARTAN2"; }}
sector {{ heightfloor = 0; heightceiling = 128; texturefloor = "FLOOR4_8";
          textureceiling = "CEIL3_5"; lightlevel = 192; }}
"""
_ALWAYS = (
    "skill1 = true; skill2 = true; skill3 = true; skill4 = true; skill5 = true; single = true;"
)
ZOMBIE = 3004


def write_wad(path: Path, lumps: list[tuple[str, bytes]], magic: bytes = b"PWAD") -> Path:
    """Write a WAD (a header, the lumps, and their directory), and return its path."""
    body, directory, offset = b"", b"", 12
    for name, data in lumps:
        directory += struct.pack("<ii8s", offset + len(body), len(data), name.encode())
        body += data
    path.write_bytes(struct.pack("<4sii", magic, len(lumps), offset + len(body)) + body + directory)
    return path


def room(name: str = "MAP01", zombie_at: int | None = None) -> list[tuple[str, bytes]]:
    """Return the lumps of a one-room map, with a zombie `zombie_at` units east of the player."""
    things = ""
    if zombie_at is not None:
        things = f"thing {{ x = {zombie_at}.0; y = 0.0; angle = 0; type = {ZOMBIE}; {_ALWAYS} }}"
    text = ROOM.format(things=things, skills=_ALWAYS)
    return [(name, b""), ("TEXTMAP", text.encode()), ("ENDMAP", b"")]
