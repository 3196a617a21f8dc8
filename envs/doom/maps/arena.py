"""`arena`: shoot the monsters."""

from __future__ import annotations

from dataclasses import dataclass

from envs.doom.maps.config import MapConfig, MonsterLook, check_range
from envs.doom.maps.grid import distances, facing, halls, open_cells
from envs.doom.maps.kind import FIGHT, Kind, Rules
from envs.doom.maps.level import CLIP, MEDIKIT, PLAYER, ZOMBIE, Level, Thing
from envs.doom.maps.looks import room_looks

_NEAREST = 3  # steps from the start to the nearest monster


@dataclass(frozen=True, kw_only=True)
class ArenaConfig(MapConfig):
    """Options of the kind `arena`."""

    size: tuple[int, int] = (6, 9)
    """Cells on a side."""
    rooms: tuple[int, int] = (1, 3)
    """Rooms, with openings between them."""
    monsters: tuple[int, int] = (4, 8)
    """Zombies."""
    items: tuple[int, int] = (4, 8)
    """Medikits and clips."""
    monster_look: MonsterLook = "zombie"
    """Whose sprites the zombies have; they behave the same."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_range("size", self.size, 4, 24)
        check_range("rooms", self.rooms, 1, 16)
        check_range("monsters", self.monsters, 1, 100)
        check_range("items", self.items, 0, 200)


class Arena(Kind[ArenaConfig]):
    """Rooms with zombies, and a player with a pistol and 50 bullets."""

    rules = Rules(
        goal="Shoot the zombies in several rooms.",
        rewards="kill +1, death -1",
        time_limit=2100,
        settings={"doom_skill": 3, "kill_reward": 1.0, "death_reward": -1.0},
        buttons=FIGHT,
        variables=("AMMO2", "HEALTH"),
    )

    def level(self, seed: int) -> Level:
        """Return the map of a seed."""
        config, rng = self.config, self.stream(seed, "layout")
        grid = halls(rng, config.size, config.rooms)
        rng = self.stream(seed, "things")
        cells = open_cells(grid)
        start = rng.choice(cells)
        away = distances(grid, start)
        far = [cell for cell in cells if away[cell] >= _NEAREST]
        count = min(rng.randint(*config.monsters), len(far))
        things = [Thing(kind=PLAYER, cell=start, angle=facing(rng, grid, start))]
        things += [
            Thing(kind=ZOMBIE, cell=cell, angle=45 * rng.randrange(8))
            for cell in rng.sample(far, count)
        ]
        for _ in range(rng.randint(*config.items)):
            kind = rng.choice((MEDIKIT, CLIP))
            things.append(Thing(kind=kind, cell=rng.choice(cells), offset=(24, 24)))
        looks = room_looks(config, self.stream(seed, "looks"), int(grid.max()) + 1)
        return Level(rooms=grid, looks=looks, things=tuple(things))
