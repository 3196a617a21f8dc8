"""Maps on a grid of square cells: which are open, what is reachable, and the shortest paths.

Axes: R rows from south to north, C columns from west to east. A cell is `(row, column)`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Cell = tuple[int, int]
Rooms = NDArray[np.int64]
"""(R, C) int64, the room that each cell belongs to, `SOLID` where there is none. The outermost
cells are solid."""
SOLID = -1
_PILLARS = 0.06  # Share of the cells that are made solid where all others stay reachable.
SIDES: tuple[Cell, ...] = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Steps to the neighbours in the east, north, west and south."""


def neighbours(cell: Cell) -> Iterator[Cell]:
    """Yield the four cells beside a cell."""
    for row, column in SIDES:
        yield cell[0] + row, cell[1] + column


def open_cells(rooms: Rooms) -> list[Cell]:
    """Return the cells that are not solid, row by row."""
    return [(int(row), int(column)) for row, column in np.argwhere(rooms != SOLID)]


def distances(rooms: Rooms, start: Cell, closed: frozenset[Cell] = frozenset()) -> dict[Cell, int]:
    """Return how many steps every reachable cell is from a cell; cells that are not are missing.

    Args:
        rooms: the grid.
        start: the first cell.
        closed: open cells that cannot be entered.
    """
    found, queue = {start: 0}, deque([start])
    while queue:
        cell = queue.popleft()
        for other in neighbours(cell):
            if rooms[other] != SOLID and other not in found and other not in closed:
                found[other] = found[cell] + 1
                queue.append(other)
    return found


def shortest_path(
    rooms: Rooms, start: Cell, goal: Cell, closed: frozenset[Cell] = frozenset()
) -> list[Cell]:
    """Return the cells of a shortest path, with both ends; empty if there is none."""
    to_goal = distances(rooms, goal, closed)
    if start not in to_goal:
        return []
    path = [start]
    while path[-1] != goal:
        path.append(min(neighbours(path[-1]), key=lambda c: to_goal.get(c, len(to_goal))))
    return path


def facing(rng: random.Random, rooms: Rooms, cell: Cell) -> int:
    """Return an angle at which a player in a cell looks into an open one, in degrees."""
    ways = [i for i, other in enumerate(neighbours(cell)) if rooms[other] != SOLID]
    return 90 * rng.choice(ways or range(4))


def maze(rng: random.Random, rows: int, columns: int, loops: float) -> Rooms:
    """Return a maze of one room, by a randomised depth-first search (recursive backtracking).

    Args:
        rng: the source of chance.
        rows: places from south to north; walls are one cell wide, so R = 2 * rows + 1.
        columns: places from west to east.
        loops: which share of the remaining inner walls between two places is removed.
    """
    grid = np.full((2 * rows + 1, 2 * columns + 1), SOLID, np.int64)
    path = [(1, 1)]
    grid[1, 1] = 0
    while path:
        row, column = path[-1]
        ways = [
            (dr, dc)
            for dr, dc in SIDES
            if 0 < row + 2 * dr < grid.shape[0]
            and 0 < column + 2 * dc < grid.shape[1]
            and grid[row + 2 * dr, column + 2 * dc] == SOLID
        ]
        if not ways:
            path.pop()
            continue
        dr, dc = rng.choice(ways)
        grid[row + dr, column + dc] = grid[row + 2 * dr, column + 2 * dc] = 0
        path.append((row + 2 * dr, column + 2 * dc))
    walls = [
        (row, column)
        for row in range(1, grid.shape[0] - 1)
        for column in range(1, grid.shape[1] - 1)
        if (row + column) % 2 and grid[row, column] == SOLID
    ]
    for wall in rng.sample(walls, round(loops * len(walls))):
        grid[wall] = 0
    return grid


def halls(rng: random.Random, size: tuple[int, int], rooms: tuple[int, int]) -> Rooms:
    """Return rectangular rooms with openings between them, by repeated division, and pillars.

    Args:
        rng: the source of chance.
        size: least and most cells on a side, without the solid border.
        rooms: least and most rooms; there are fewer if there is no space for them.
    """
    rows, columns, count = rng.randint(*size), rng.randint(*size), rng.randint(*rooms)
    grid = np.full((rows + 2, columns + 2), SOLID, np.int64)
    grid[1:-1, 1:-1] = 0
    spaces = [(1, 1, rows, columns)]  # first row and column, last row and column
    while len(spaces) < count:
        divisible = [s for s in spaces if max(s[2] - s[0], s[3] - s[1]) >= 4]
        if not divisible:
            break
        space = max(divisible, key=lambda s: (s[2] - s[0] + 1) * (s[3] - s[1] + 1))
        spaces.remove(space)
        spaces += _divided(rng, grid, space, len(spaces) + 1)
    for cell in rng.sample(open_cells(grid), round(_PILLARS * rows * columns)):
        room, grid[cell] = grid[cell], SOLID
        left = open_cells(grid)
        if len(distances(grid, left[0])) < len(left):
            grid[cell] = room
    return grid


def _divided(
    rng: random.Random, grid: Rooms, space: tuple[int, int, int, int], room: int
) -> list[tuple[int, int, int, int]]:
    """Build a wall across a room, with an opening of up to two cells, and return both parts."""
    top, left, bottom, right = space
    along_rows = bottom - top >= right - left
    low, high, first, last = (
        (top, bottom, left, right) if along_rows else (left, right, top, bottom)
    )
    view = grid if along_rows else grid.T
    places = range(low + 2, high - 1)
    # A wall must not end at the opening of another one.
    free = [p for p in places if view[p, first - 1] == SOLID and view[p, last + 1] == SOLID]
    at = rng.choice(free or [low + 2])
    opening = rng.randint(first, max(first, last - 1))
    kept = {opening, min(opening + 1, last)}
    if not free:  # It would: then the opening is where the other one is.
        kept |= {first, last}
    for place in range(first, last + 1):
        view[at, place] = 0 if place in kept else SOLID
    beyond = view[at + 1 : high + 1, first : last + 1]
    beyond[beyond != SOLID] = room
    for place in kept:
        view[at, place] = room
    if along_rows:
        return [(top, left, at - 1, right), (at + 1, left, bottom, right)]
    return [(top, left, bottom, at - 1), (top, at + 1, bottom, right)]
