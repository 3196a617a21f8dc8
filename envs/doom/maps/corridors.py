"""`corridors`: fight through a row of rooms to the goal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.doom.maps.config import MapConfig, MonsterLook, check_range
from envs.doom.maps.grid import SOLID
from envs.doom.maps.kind import FIGHT, Kind, Rules, turned
from envs.doom.maps.level import (
    ARMOR,
    CLIP,
    EXIT,
    MEDIKIT,
    PLAYER,
    ZOMBIE,
    Level,
    Thing,
)
from envs.doom.maps.looks import room_looks


@dataclass(frozen=True, kw_only=True)
class CorridorsConfig(MapConfig):
    """Options of the kind `corridors`."""

    size: tuple[int, int] = (2, 4)
    """Cells on a side of a room."""
    rooms: tuple[int, int] = (2, 4)
    """Rooms in a row."""
    monsters: tuple[int, int] = (1, 2)
    """Zombies in each room but the first."""
    items: tuple[int, int] = (0, 1)
    """Medikits and clips in each room."""
    monster_look: MonsterLook = "zombie"
    """Whose sprites the zombies have; they behave the same."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_range("size", self.size, 2, 12)
        check_range("rooms", self.rooms, 2, 12)
        check_range("monsters", self.monsters, 0, 4)
        check_range("items", self.items, 0, 4)


class Corridors(Kind[CorridorsConfig]):
    """Rooms in a row, each joined to the next by a doorway, with a vest in the last one."""

    rules = Rules(
        goal="Fight through a row of rooms to the green vest.",
        rewards="vest +1 (ends the episode), kill +0.2, death -1, -0.0001 a tic",
        time_limit=2100,
        settings={
            "doom_skill": 3,
            "living_reward": -0.0001,
            "kill_reward": 0.2,
            "death_reward": -1.0,
            "map_exit_reward": 1.0,
        },
        buttons=FIGHT,
        variables=("AMMO2", "HEALTH"),
    )

    def level(self, seed: int) -> Level:
        """Return the map of a seed."""
        config, rng = self.config, self.stream(seed, "layout")
        count = rng.randint(*config.rooms)
        sizes = [(rng.randint(*config.size), rng.randint(*config.size)) for _ in range(count)]
        height = max(rows for rows, _ in sizes) + 2
        grid = np.full((height, sum(columns + 1 for _, columns in sizes) + 1), SOLID, np.int64)
        west, cells = 1, []
        for room, (rows, columns) in enumerate(sizes):
            south = rng.randint(1, height - 1 - rows)
            grid[south : south + rows, west : west + columns] = room
            cells.append([(south + r, west + c) for r in range(rows) for c in range(columns)])
            west += columns + 1
        for room in range(1, count):  # Doorways, where rooms overlap; else a passage joins them.
            column = cells[room][0][1] - 1
            rows_before, rows_after = ({r for r, _ in cells[i]} for i in (room - 1, room))
            both = sorted(rows_before & rows_after)
            one, other = (rng.choice(sorted(rows)) for rows in (rows_before, rows_after))
            low, high = sorted((one, other)) if not both else (rng.choice(both),) * 2
            grid[low : high + 1, column] = room
        rng = self.stream(seed, "things")
        start, goal = rng.choice(cells[0]), rng.choice(cells[-1])
        things = [
            Thing(kind=PLAYER, cell=start, angle=0),
            Thing(kind=ARMOR, cell=goal, special=EXIT),
        ]
        for room, own in enumerate(cells):
            monsters = min(rng.randint(*config.monsters), len(own)) if room else 0
            things += [Thing(kind=ZOMBIE, cell=c, angle=180) for c in rng.sample(own, monsters)]
            for _ in range(rng.randint(*config.items)):
                kind = rng.choice((MEDIKIT, CLIP))
                things.append(Thing(kind=kind, cell=rng.choice(own), offset=(24, 24)))
        looks = room_looks(config, self.stream(seed, "looks"), count)
        level = Level(rooms=grid, looks=looks, things=tuple(things), targets=(goal,))
        return turned(level, self.stream(seed, "turn").randrange(4))
