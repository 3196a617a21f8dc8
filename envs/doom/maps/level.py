"""A map before it is written: a grid of cells, what its rooms look like, and things in them.

Distances are in map units: a player is 32 wide and 56 high. x points east, y north; angles are in
degrees, counter-clockwise from east.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from envs.doom.maps.grid import SOLID, Cell, Rooms

# Types of things, as numbered by Doom.
PLAYER, ZOMBIE, ARMOR, ARMOR_BONUS, MEDIKIT, CLIP = 1, 3004, 2018, 2015, 2012, 2007
BLUE_KEY, RED_KEY = 5, 13
BLUE_TORCH, RED_TORCH = 44, 46
# What happens when a thing is picked up, or a line is touched: ZDoom's "action specials".
DOOR, EXIT, DAMAGE = 13, 243, 73
HOSTILE_FLOOR = 69  # A sector that takes 10 of the player's health every 32 tics.


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a room looks like.

    Attributes:
        floor: height of the floor.
        ceiling: height of the ceiling.
        wall: texture of its walls.
        floor_flat: texture of its floor.
        ceiling_flat: texture of its ceiling.
        light: 0 to 255.
        special: number of its special, such as `HOSTILE_FLOOR`.
        lock: if it is a closed door, the number of the key that opens it.
    """

    wall: str
    floor_flat: str
    ceiling_flat: str
    light: int
    floor: int = 0
    ceiling: int = 128
    special: int = 0
    lock: int | None = None


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something in a cell: the player's start, an item, a monster or a decoration.

    Attributes:
        kind: Doom's number of its type.
        cell: the cell in whose centre it is.
        angle: in degrees.
        offset: by how much it is away from the centre, x and y.
        special: what happens when it is picked up; 0 for nothing.
        arguments: of the special.
    """

    kind: int
    cell: Cell
    angle: int = 0
    offset: tuple[int, int] = (0, 0)
    special: int = 0
    arguments: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Level:
    """A map.

    Attributes:
        rooms: (R, C) int64, the room of each cell, see `envs.doom.maps.grid`.
        looks: what each room looks like.
        things: what is in it; one of them is the player's start.
        cell_size: width of a cell.
        targets: the cells that a player who knows the map visits, in order, to reach the goal;
            empty where there is no single goal.
        has_players: whether its things are there for several players, too.
    """

    rooms: Rooms
    looks: tuple[Room, ...]
    things: tuple[Thing, ...]
    cell_size: int = 96
    targets: tuple[Cell, ...] = field(default=())
    has_players: bool = False

    @property
    def start(self) -> Thing:
        """The player's start."""
        return next(thing for thing in self.things if thing.kind == PLAYER)

    def centre(self, cell: Cell) -> tuple[float, float]:
        """Return the centre of a cell, x and y."""
        return (cell[1] + 0.5) * self.cell_size, (cell[0] + 0.5) * self.cell_size

    def position(self, thing: Thing) -> tuple[float, float]:
        """Return where a thing is, x and y."""
        x, y = self.centre(thing.cell)
        return x + thing.offset[0], y + thing.offset[1]

    def cell_at(self, x: float, y: float) -> Cell:
        """Return the cell at a position."""
        return int(y // self.cell_size), int(x // self.cell_size)

    def is_open(self, cell: Cell) -> bool:
        """Return whether a cell is not solid."""
        return bool(self.rooms[cell] != SOLID)
