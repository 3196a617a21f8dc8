"""The kinds of matches: which players, on which maps, for which rewards, and when a match ends.

A new kind is an entry of `KINDS`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from envs.doom.maps.config import MapConfig
from envs.doom.maps.grid import Cell, Rooms, distances, facing, halls, open_cells
from envs.doom.maps.kind import FIGHT, named_kind
from envs.doom.maps.level import CLIP, MEDIKIT, PLAYER, ZOMBIE, Level, Thing
from envs.doom.maps.looks import room_looks

PREFIX = "players:"
# Types of things, as numbered by Doom: where players start in a deathmatch, and weapons.
_DEATHMATCH_START = 11
_SHOTGUN, _SHELLS, _CHAINGUN = 2001, 2008, 2002
_NEAREST_MONSTER = 3  # steps from the players' starts
_COUNTERS = ("frags", "deaths", "hits", "hits_taken", "kills")


@dataclass(frozen=True, kw_only=True)
class MatchRewards:
    """What a player is paid for each change of its counters.

    Attributes:
        frags: for each player that it killed; the engine takes one away for killing oneself.
        deaths: for each of its deaths.
        hits: for each of its shots that hit something.
        hits_taken: for each shot that hit it.
        kills: for each monster that any player killed: the engine counts monsters for the team.
    """

    frags: float = 0.0
    deaths: float = 0.0
    hits: float = 0.0
    hits_taken: float = 0.0
    kills: float = 0.0

    def of(self, changes: dict[str, float]) -> float:
        """Return the reward for changes of counters."""
        return float(sum(getattr(self, name) * changes[name] for name in _COUNTERS))


@dataclass(frozen=True, kw_only=True)
class MatchKind:
    """A kind of matches.

    Attributes:
        goal: the task, in one sentence.
        rewards: what players are paid.
        words: the rewards in words.
        time_limit: tics until a match is truncated.
        num_players: players that need an engine each.
        num_bots: the engine's own bots, beside them.
        is_team: whether all players are a team against monsters.
        frag_limit: a match is terminated when a player has killed this many players; None: never.
        size: least and most cells on a side of the map.
        rooms: least and most rooms.
        monsters: least and most zombies; a team's match is terminated when none is left.
        items: kinds of things that lie around, each in another cell.
    """

    goal: str
    rewards: MatchRewards
    words: str
    time_limit: int
    num_players: int = 2
    num_bots: int = 0
    is_team: bool = False
    frag_limit: int | None = None
    size: tuple[int, int] = (5, 7)
    rooms: tuple[int, int] = (1, 2)
    monsters: tuple[int, int] = (0, 0)
    items: tuple[int, ...] = ()
    settings: dict[str, float] = field(default_factory=lambda: {"doom_skill": 3})
    buttons: tuple[str, ...] = FIGHT
    variables: tuple[str, ...] = ("SELECTED_WEAPON_AMMO", "HEALTH")

    def level(self, seed: int) -> Level:
        """Return the map of a seed; the same seed gives the same map."""
        rng = random.Random(f"players layout {seed}")
        grid = halls(rng, self.size, self.rooms)
        cells = open_cells(grid)
        starts = self._starts(rng, grid, cells)
        things = [
            Thing(kind=PLAYER + i, cell=cell, angle=facing(rng, grid, cell))
            for i, cell in enumerate(starts[: max(self.num_players, 1)])
        ]
        if not self.is_team:
            things += [
                Thing(kind=_DEATHMATCH_START, cell=cell, angle=facing(rng, grid, cell))
                for cell in starts
            ]
        away = distances(grid, starts[0])
        far = [c for c in cells if away[c] >= _NEAREST_MONSTER and c not in starts]
        count = min(rng.randint(*self.monsters), len(far))
        things += [
            Thing(kind=ZOMBIE, cell=cell, angle=45 * rng.randrange(8))
            for cell in rng.sample(far, count)
        ]
        free = [cell for cell in cells if cell not in starts]
        places = rng.sample(free, min(len(self.items), len(free)))
        things += [
            Thing(kind=item, cell=cell, offset=(24, 24))
            for item, cell in zip(self.items, places, strict=False)
        ]
        looks = room_looks(MapConfig(), random.Random(f"players looks {seed}"), int(grid.max()) + 1)
        return Level(rooms=grid, looks=looks, things=tuple(things), has_players=True)

    def _starts(self, rng: random.Random, grid: Rooms, cells: list[Cell]) -> list[Cell]:
        """Return where players start: a team side by side, opponents as far apart as possible."""
        starts = [rng.choice(cells)]
        away = distances(grid, starts[0])
        if self.is_team:
            return sorted(cells, key=lambda cell: (away[cell], cell))[: self.num_players]
        for _ in range(self.num_players + self.num_bots - 1):
            nearest = dict.fromkeys(cells, len(cells))
            for start in starts:
                steps = distances(grid, start)
                nearest = {cell: min(nearest[cell], steps[cell]) for cell in cells}
            starts.append(max(cells, key=lambda cell: (nearest[cell], cell)))
        return starts


KINDS: dict[str, MatchKind] = {
    "duel": MatchKind(
        goal="Shoot the other player before it shoots you.",
        rewards=MatchRewards(frags=1.0, deaths=-1.0, hits=0.05, hits_taken=-0.05),
        words="frag +1, own death -1, hit +0.05, hit taken -0.05",
        time_limit=1050,
        frag_limit=1,
        # Small, and with shotguns: even random players meet and hit each other.
        size=(4, 5),
        rooms=(1, 1),
        items=(_SHOTGUN, _SHOTGUN, _SHELLS, CLIP, MEDIKIT),
    ),
    "deathmatch": MatchKind(
        goal="Shoot the other player and the bots, again and again.",
        rewards=MatchRewards(frags=1.0, deaths=-0.5, hits=0.05),
        words="frag +1, own death -0.5, hit +0.05",
        time_limit=2100,
        num_bots=2,
        size=(6, 9),
        rooms=(1, 3),
        items=(_SHOTGUN, _SHELLS, _SHELLS, _CHAINGUN, CLIP, CLIP, MEDIKIT, MEDIKIT),
    ),
    "cooperation": MatchKind(
        goal="Shoot all zombies together.",
        rewards=MatchRewards(kills=1.0, deaths=-1.0),
        words="+1 to both players for each zombie that either of them kills, own death -1",
        time_limit=2100,
        is_team=True,
        size=(6, 8),
        rooms=(1, 2),
        monsters=(5, 8),
        items=(CLIP, CLIP, CLIP, MEDIKIT, MEDIKIT),
    ),
}
"""Kinds of matches."""


def players_kind(env: str) -> MatchKind | None:
    """Return the kind of matches that an environment's name names; None if it names none.

    Raises:
        EnvError: If there is no such kind.
    """
    kind = named_kind(env, PREFIX, KINDS, "matches")
    return None if kind is None else KINDS[kind]
