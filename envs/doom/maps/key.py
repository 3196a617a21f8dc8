"""`key`: find a key, then the door that it opens."""

from __future__ import annotations

from dataclasses import dataclass, replace

from envs.doom.maps.config import MapConfig
from envs.doom.maps.grid import SOLID, Cell, Rooms, distances, facing, maze, neighbours, open_cells
from envs.doom.maps.kind import Kind, Rules
from envs.doom.maps.level import ARMOR_BONUS, BLUE_KEY, EXIT, PLAYER, RED_KEY, Level, Thing
from envs.doom.maps.looks import DOORS, room_looks
from envs.doom.maps.maze import check_maze

_SOUL_SPHERE = 2013
# ZDoom's locks: the key that opens them, with its door.
_KEYS = ((RED_KEY, 1, DOORS["red"]), (BLUE_KEY, 2, DOORS["blue"]))


@dataclass(frozen=True, kw_only=True)
class KeyConfig(MapConfig):
    """Options of the kind `key`."""

    size: tuple[int, int] = (2, 4)
    """Places between walls on a side; with the walls, twice as many cells and one more."""
    loops: float = 0.0
    """Share of the inner walls that are removed, so that there are several ways; 0 to 1."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_maze(self.size, self.loops)


class Key(Kind[KeyConfig]):
    """A maze in which the goal is behind a locked door, and its key somewhere else."""

    rules = Rules(
        goal="Find the key, then the door of its colour, and what is behind it.",
        rewards="key +0.5, blue sphere behind the door +1 (ends the episode), -0.0001 a tic",
        time_limit=2100,
        settings={
            "doom_skill": 3,
            "living_reward": -0.0001,
            "armor_reward": 0.5,  # An armour bonus, of one point, lies where the key is.
            "map_exit_reward": 1.0,
        },
        variables=("HEALTH", "ARMOR"),
    )

    def level(self, seed: int) -> Level:
        """Return the map of a seed."""
        config, rng = self.config, self.stream(seed, "layout")
        rows, columns = rng.randint(*config.size), rng.randint(*config.size)
        grid = maze(rng, rows, columns, 0.0)
        goal = rng.choice([cell for cell in open_cells(grid) if len(_ways(grid, cell)) == 1])
        (door,) = _ways(grid, goal)
        for row, column in _removable(grid, goal):
            if rng.random() < config.loops:
                grid[row, column] = 0
        free = [c for c in open_cells(grid) if c[0] % 2 and c[1] % 2 and c != goal]
        start = rng.choice(free)
        away = distances(grid, start, frozenset((door,)))
        far = [c for c in free if 2 * away[c] >= max(away[c] for c in free) and c != start]
        at = rng.choice(far or free)
        key, lock, texture = rng.choice(_KEYS)
        grid[door] = 1
        grid[goal] = 2
        things = (
            Thing(kind=PLAYER, cell=start, angle=facing(rng, grid, start)),
            Thing(kind=ARMOR_BONUS, cell=at),
            Thing(kind=key, cell=at),
            Thing(kind=_SOUL_SPHERE, cell=goal, special=EXIT),
        )
        own, _, behind = room_looks(config, self.stream(seed, "looks"), 3)
        shut = replace(own, wall=texture, lock=lock)
        return Level(rooms=grid, looks=(own, shut, behind), things=things, targets=(at, goal))


def _ways(grid: Rooms, cell: Cell) -> list[Cell]:
    return [other for other in neighbours(cell) if grid[other] != SOLID]


def _removable(grid: Rooms, goal: Cell) -> list[Cell]:
    """Return the walls between two places of a maze, but those around the goal."""
    return [
        (row, column)
        for row in range(1, grid.shape[0] - 1)
        for column in range(1, grid.shape[1] - 1)
        if (row + column) % 2
        and grid[row, column] == SOLID
        and goal not in neighbours((row, column))
    ]
