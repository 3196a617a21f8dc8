"""`maze`: find the vest."""

from __future__ import annotations

import random
from dataclasses import dataclass

from envs.doom.maps.config import MapConfig, check_range
from envs.doom.maps.grid import SOLID, Rooms, distances, facing, maze, open_cells
from envs.doom.maps.kind import Kind, Rules
from envs.doom.maps.level import ARMOR, EXIT, PLAYER, Level, Thing
from envs.doom.maps.looks import room_looks


@dataclass(frozen=True, kw_only=True)
class MazeConfig(MapConfig):
    """Options of the kind `maze`."""

    size: tuple[int, int] = (3, 5)
    """Places between walls on a side; with the walls, twice as many cells and one more."""
    loops: float = 0.0
    """Share of the inner walls that are removed, so that there are several ways; 0 to 1."""
    rooms: tuple[int, int] = (1, 4)
    """Parts of the maze with different walls."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_maze(self.size, self.loops)
        check_range("rooms", self.rooms, 1, 16)


def check_maze(size: tuple[int, int], loops: float) -> None:
    """Check the options of a maze.

    Raises:
        ValueError: If one is out of range.
    """
    check_range("size", size, 2, 13)
    if not 0 <= loops <= 1:
        raise ValueError(f"loops must be between 0 and 1, got {loops}")


class Maze(Kind[MazeConfig]):
    """A maze with a vest in it, at least half as far from the start as the farthest cell."""

    rules = Rules(
        goal="Find the green vest in a maze.",
        rewards="vest +1 (ends the episode), -0.0001 a tic",
        time_limit=2100,
        settings={"doom_skill": 3, "living_reward": -0.0001, "map_exit_reward": 1.0},
    )

    def level(self, seed: int) -> Level:
        """Return the map of a seed."""
        config, rng = self.config, self.stream(seed, "layout")
        rows, columns = rng.randint(*config.size), rng.randint(*config.size)
        grid = maze(rng, rows, columns, config.loops)
        start = rng.choice(_places(grid))
        away = {c: d for c, d in distances(grid, start).items() if c[0] % 2 and c[1] % 2}
        goal = rng.choice(sorted(c for c, d in away.items() if 2 * d >= max(away.values())))
        count = min(rng.randint(*config.rooms), len(open_cells(grid)))
        divide(rng, grid, count)
        things = (
            Thing(kind=PLAYER, cell=start, angle=facing(rng, grid, start)),
            Thing(kind=ARMOR, cell=goal, special=EXIT),
        )
        looks = room_looks(config, self.stream(seed, "looks"), count)
        return Level(rooms=grid, looks=looks, things=things, targets=(goal,))


def divide(rng: random.Random, grid: Rooms, count: int) -> None:
    """Make a grid of one room one of several: a cell belongs to the nearest of random cells."""
    cells = open_cells(grid)
    centres = rng.sample(cells, count)
    for row, column in cells:
        away = [(row - y) ** 2 + (column - x) ** 2 for y, x in centres]
        grid[row, column] = away.index(min(away))


def _places(grid: Rooms) -> list[tuple[int, int]]:
    """Return the cells of a maze between which walls may be."""
    height, width = grid.shape
    places = [(r, c) for r in range(1, height, 2) for c in range(1, width, 2)]
    assert all(grid[place] != SOLID for place in places)
    return places
