"""`gather`: stay alive on a hostile floor by collecting medikits."""

from __future__ import annotations

from dataclasses import dataclass

from envs.doom.maps.config import MapConfig, check_range
from envs.doom.maps.grid import facing, halls, open_cells
from envs.doom.maps.kind import Kind, Rules
from envs.doom.maps.level import HOSTILE_FLOOR, MEDIKIT, PLAYER, Level, Thing
from envs.doom.maps.looks import HOSTILE_FLATS, room_looks


@dataclass(frozen=True, kw_only=True)
class GatherConfig(MapConfig):
    """Options of the kind `gather`."""

    size: tuple[int, int] = (7, 10)
    """Cells on a side."""
    rooms: tuple[int, int] = (1, 4)
    """Rooms, with openings between them."""
    items: tuple[int, int] = (36, 48)
    """Medikits, at most one a cell; each restores 25 of 100 health, and none comes back."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_range("size", self.size, 4, 24)
        check_range("rooms", self.rooms, 1, 16)
        check_range("items", self.items, 1, 200)


class Gather(Kind[GatherConfig]):
    """Rooms on whose floor a player loses 10 health every 32 tics, with medikits in them."""

    rules = Rules(
        goal="Stay alive on a hostile floor by collecting medikits.",
        rewards="+1 a tic, death -100",
        time_limit=2100,
        settings={"doom_skill": 3, "living_reward": 1.0, "death_reward": -100.0},
    )

    def level(self, seed: int) -> Level:
        """Return the map of a seed."""
        config, rng = self.config, self.stream(seed, "layout")
        grid = halls(rng, config.size, config.rooms)
        rng = self.stream(seed, "things")
        cells = open_cells(grid)
        start = rng.choice(cells)
        things = [Thing(kind=PLAYER, cell=start, angle=facing(rng, grid, start))]
        cells.remove(start)
        for cell in rng.sample(cells, min(rng.randint(*config.items), len(cells))):
            offset = (rng.randint(-24, 24), rng.randint(-24, 24))
            things.append(Thing(kind=MEDIKIT, cell=cell, offset=offset))
        looks = room_looks(
            config,
            self.stream(seed, "looks"),
            int(grid.max()) + 1,
            special=HOSTILE_FLOOR,
            floor_flat=HOSTILE_FLATS[config.textures],
        )
        return Level(rooms=grid, looks=looks, things=tuple(things))
