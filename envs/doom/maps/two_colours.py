"""`two_colours`: what is shown at the start tells which item pays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from envs.doom.maps.config import MapConfig, check_range
from envs.doom.maps.grid import SOLID
from envs.doom.maps.kind import Kind, Rules, turned
from envs.doom.maps.level import (
    ARMOR_BONUS,
    BLUE_KEY,
    BLUE_TORCH,
    DAMAGE,
    EXIT,
    PLAYER,
    RED_KEY,
    RED_TORCH,
    Level,
    Thing,
)
from envs.doom.maps.looks import room_looks

_LEDGE = 48  # A player can step up 24.
_COLOURS = ((RED_KEY, RED_TORCH), (BLUE_KEY, BLUE_TORCH))


@dataclass(frozen=True, kw_only=True)
class TwoColoursConfig(MapConfig):
    """Options of the kind `two_colours`."""

    size: tuple[int, int] = (2, 4)
    """Cells of each part of the corridor that leads to the items."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_range("size", self.size, 1, 12)


class TwoColours(Kind[TwoColoursConfig]):
    """A chamber with torches of one colour, and a corridor that leads to a red and a blue key.

    The player drops from the chamber into the corridor, which has two bends, and cannot go back:
    where the items are seen, the torches are not. What is to be learned is to remember, not to find
    the way: armour bonuses mark it.
    """

    rules = Rules(
        goal="Take the key of the colour that the torches at the start have.",
        rewards="each of three armour bonuses on the way +0.1, right key +1, wrong key 0 (both end "
        "the episode), -0.0001 a tic",
        time_limit=1050,
        settings={
            "doom_skill": 3,
            "living_reward": -0.0001,
            "armor_reward": 0.1,
            "map_exit_reward": 1.0,  # The right key leaves the level.
            "death_reward": 0.0,  # The wrong one kills.
        },
    )

    def level(self, seed: int) -> Level:
        """Return the map of a seed."""
        config, rng = self.config, self.stream(seed, "layout")
        first, bend, last, arm = (rng.randint(*config.size) for _ in range(4))
        # North: the chamber, a part of the corridor, one to the east, one to the north, two arms.
        height, width = 3 + first + 1 + last + 3, 2 * arm + bend + 7
        grid = np.full((height, width), SOLID, np.int64)
        middle = arm + 3
        grid[1:4, middle - 1 : middle + 2] = 0
        turn, top = 4 + first, 4 + first + last + 1
        grid[4 : turn + 1, middle] = 1
        grid[turn, middle : middle + bend + 1] = 1
        grid[turn : top + 1, middle + bend] = 1
        ends = [middle + bend - arm - 1, middle + bend + arm + 1]
        grid[top, ends[0] : ends[1] + 1] = 2
        right = rng.randrange(2)  # which colour pays
        sides = rng.sample(ends, 2)  # where red and blue are
        shown = _COLOURS[right][1]
        bends = (turn, middle), (turn, middle + bend), (top, middle + bend)
        things = [
            Thing(kind=PLAYER, cell=(1, middle), angle=90),
            *(Thing(kind=ARMOR_BONUS, cell=cell) for cell in bends),
            Thing(kind=shown, cell=(3, middle - 1), offset=(0, 16)),
            Thing(kind=shown, cell=(3, middle + 1), offset=(0, 16)),
        ]
        for colour, column in enumerate(sides):
            key, torch = _COLOURS[colour]
            outwards = 28 if column > middle + bend else -28
            does = EXIT if colour == right else DAMAGE
            things += [
                Thing(kind=key, cell=(top, column), offset=(-outwards, 0), special=does),
                Thing(kind=torch, cell=(top, column), offset=(outwards, 0)),
            ]
        chamber, *below = room_looks(config, self.stream(seed, "looks"), 3)
        looks = (replace(chamber, floor=_LEDGE, ceiling=_LEDGE + 128), *below)
        level = Level(
            rooms=grid,
            looks=looks,
            things=tuple(things),
            targets=((top, middle + bend), (top, sides[right])),
        )
        if rng.randrange(2):
            level = _mirrored(level)
        return turned(level, rng.randrange(4))


def _mirrored(level: Level) -> Level:
    """Return a map with east and west exchanged."""
    width = level.rooms.shape[1]
    things = [
        replace(
            thing,
            cell=(thing.cell[0], width - 1 - thing.cell[1]),
            angle=(180 - thing.angle) % 360,
            offset=(-thing.offset[0], thing.offset[1]),
        )
        for thing in level.things
    ]
    targets = tuple((row, width - 1 - column) for row, column in level.targets)
    return replace(level, rooms=level.rooms[:, ::-1], things=tuple(things), targets=targets)
