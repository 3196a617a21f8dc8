"""Writes maps as UDMF, Doom's text format of maps, and WADs, its containers.

The engine builds what else it needs, such as nodes, when it loads a map. The format is specified in
"Universal Doom Map Format Specification v1.1", with ZDoom's extensions.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator

from envs.doom.maps.grid import SIDES, SOLID, Cell
from envs.doom.maps.level import DOOR, Level, Room, Thing

_ALWAYS = "".join(f"skill{i}=true;" for i in range(1, 6)) + "single=true;class1=true;"
_FOR_PLAYERS = "coop=true;dm=true;"
_DOOR_SPEED, _DOOR_DELAY = 16, 0  # With no delay, a door that was opened stays open.
Point = tuple[int, int]
"""A corner of cells, in cells: column, row."""
Edge = tuple[Point, Point]
"""From one corner to the next, with the front room on its right."""
Rooms = tuple[int, int]
"""The rooms in front of an edge and behind it."""


def text(level: Level) -> str:
    """Return a map as UDMF."""
    corners: dict[Point, int] = {}
    lines: list[str] = []
    sides: list[str] = []
    for (start, end), (front, back) in _merged(_edges(level)):
        first, last = (corners.setdefault(corner, len(corners)) for corner in (start, end))
        looks = level.looks[front], None if back == SOLID else level.looks[back]
        lines.append(_line(first, last, looks, len(sides)))
        sides.append(_side(front, looks[0], is_solid=back == SOLID))
        if back != SOLID:
            sides.append(_side(back, level.looks[back], is_solid=False))
    size = level.cell_size
    vertices = [f"vertex{{x={x * size:.1f};y={y * size:.1f};}}" for x, y in corners]
    sectors = [_sector(look) for look in level.looks]
    things = [_thing(level, thing) for thing in level.things]
    blocks = ['namespace="ZDoom";', *vertices, *lines, *sides, *sectors, *things]
    return "\n".join(blocks) + "\n"


def wad(lumps: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a WAD: a header, the contents of the lumps, and their directory."""
    directory, offset = b"", 12
    contents = []
    for name, content in lumps:
        directory += struct.pack("<ii8s", offset, len(content), name.encode())
        contents.append(content)
        offset += len(content)
    header = struct.pack("<4sii", b"PWAD", len(contents), offset)
    return header + b"".join(contents) + directory


def _edges(level: Level) -> dict[Edge, Rooms]:
    """Return the sides of cells at which the room changes, each with the rooms on both sides."""
    edges: dict[Edge, Rooms] = {}
    height, width = level.rooms.shape
    for row in range(height):
        for column in range(width):
            room = int(level.rooms[row, column])
            if room == SOLID:
                continue
            for dr, dc in SIDES:
                other = int(level.rooms[row + dr, column + dc])
                # Between two rooms, the one with the lower number is in front.
                if other == SOLID or room < other:
                    edges[_side_of((row, column), (dr, dc))] = (room, other)
    return edges


def _side_of(cell: Cell, step: Cell) -> Edge:
    """Return the edge between a cell and its neighbour, with the cell on its right."""
    row, column = cell
    return {
        (0, 1): ((column + 1, row + 1), (column + 1, row)),
        (1, 0): ((column, row + 1), (column + 1, row + 1)),
        (0, -1): ((column, row), (column, row + 1)),
        (-1, 0): ((column + 1, row), (column, row)),
    }[step]


def _merged(edges: dict[Edge, Rooms]) -> Iterator[tuple[Edge, Rooms]]:
    """Yield edges, those joined that continue each other where no third one meets them."""
    meeting: dict[Point, list[Edge]] = defaultdict(list)
    for edge in edges:
        for corner in edge:
            meeting[corner].append(edge)

    def joins(corner: Point, edge: Edge) -> Edge | None:
        others = [other for other in meeting[corner] if other != edge]
        if len(others) != 1 or edges[others[0]] != edges[edge]:
            return None
        return others[0] if _direction(others[0]) == _direction(edge) else None

    for edge, rooms in edges.items():
        start, end = edge
        if joins(start, edge):
            continue  # It belongs to a line that starts earlier.
        last = edge
        while following := joins(end, last):
            last, end = following, following[1]
        yield (start, end), rooms


def _direction(edge: Edge) -> Point:
    (x0, y0), (x1, y1) = edge
    return x1 - x0, y1 - y0


def _line(first: int, last: int, looks: tuple[Room, Room | None], side: int) -> str:
    front, back = looks
    line = f"v1={first};v2={last};sidefront={side};"
    if back is None:
        return f"linedef{{{line}blocking=true;}}"
    line += f"sideback={side + 1};twosided=true;"
    lock = front.lock if front.lock is not None else back.lock
    if lock is not None:
        # It opens when a player who has the key walks against it, from either side.
        line += f"special={DOOR};arg0=0;arg1={_DOOR_SPEED};arg2={_DOOR_DELAY};arg3={lock};"
        line += "playerpush=true;playeruse=true;repeatspecial=true;"
    return f"linedef{{{line}}}"


def _side(room: int, look: Room, *, is_solid: bool) -> str:
    wall = f'"{look.wall}"'
    textures = f"texturemiddle={wall};" if is_solid else f"texturetop={wall};texturebottom={wall};"
    return f"sidedef{{sector={room};{textures}}}"


def _sector(look: Room) -> str:
    ceiling = look.floor if look.lock is not None else look.ceiling
    return (
        f"sector{{heightfloor={look.floor};heightceiling={ceiling};"
        f'texturefloor="{look.floor_flat}";textureceiling="{look.ceiling_flat}";'
        f"lightlevel={look.light};special={look.special};}}"
    )


def _thing(level: Level, thing: Thing) -> str:
    x, y = level.position(thing)
    given = f"special={thing.special};" if thing.special else ""
    given += "".join(f"arg{i}={value};" for i, value in enumerate(thing.arguments))
    given += _FOR_PLAYERS if level.has_players else ""
    return f"thing{{x={x:.1f};y={y:.1f};angle={thing.angle};type={thing.kind};{given}{_ALWAYS}}}"
