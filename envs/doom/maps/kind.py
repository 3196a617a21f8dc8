"""What a kind of generated maps is: its rules, and a generator of maps."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, TypeVar

import numpy as np

from envs.doom.maps.config import MapConfig
from envs.doom.maps.grid import Cell
from envs.doom.maps.level import Level, Thing
from envs.errors import EnvError

WALK = ("TURN_LEFT", "TURN_RIGHT", "MOVE_FORWARD")
FIGHT = (*WALK, "MOVE_LEFT", "MOVE_RIGHT", "ATTACK")
ConfigT = TypeVar("ConfigT", bound=MapConfig)


def named_kind(env: str, prefix: str, kinds: Collection[str], what: str) -> str | None:
    """Return the kind that an environment's name names after a prefix; None if it names none.

    Args:
        env: the environment's name.
        prefix: as in `maps:`.
        kinds: those that there may be.
        what: what they are kinds of, for the error.

    Raises:
        EnvError: If there is no such kind.
    """
    if not env.startswith(prefix):
        return None
    kind = env.removeprefix(prefix)
    if kind not in kinds:
        raise EnvError(f"there is no kind of {what} {kind[:60]!r}; choose from {', '.join(kinds)}")
    return kind


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The task of a kind of maps, which is the same in all of them.

    Attributes:
        goal: the task, in one sentence.
        rewards: all rewards, in words; the environment returns exactly these.
        time_limit: tics until an episode is truncated.
        settings: setters of ViZDoom's DoomGame (without `set_`) and their values, which pay them.
        buttons: engine buttons.
        variables: game variables that an agent may observe.
    """

    goal: str
    rewards: str
    time_limit: int
    settings: dict[str, float] = field(default_factory=dict)
    buttons: tuple[str, ...] = WALK
    variables: tuple[str, ...] = ("HEALTH",)


class Kind(ABC, Generic[ConfigT]):
    """A generator of maps. The same options and seed give the same map.

    Args:
        config: options of the maps.
    """

    rules: ClassVar[Rules]

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def level(self, seed: int) -> Level:
        """Return the map of a seed."""

    @staticmethod
    def stream(seed: int, name: str) -> random.Random:
        """Return a source of chance of its own for one aspect of a map.

        So a map whose textures are others has the same layout.
        """
        return random.Random(f"{name} {seed}")


def turned(level: Level, quarters: int) -> Level:
    """Return a map turned clockwise by a number of right angles."""
    for _ in range(quarters % 4):
        width = level.rooms.shape[1]
        level = replace(
            level,
            rooms=np.rot90(level.rooms),
            things=tuple(_turned_thing(thing, width) for thing in level.things),
            targets=tuple(_turned_cell(cell, width) for cell in level.targets),
        )
    return level


def _turned_cell(cell: Cell, width: int) -> Cell:
    return width - 1 - cell[1], cell[0]


def _turned_thing(thing: Thing, width: int) -> Thing:
    x, y = thing.offset
    return replace(
        thing,
        cell=_turned_cell(thing.cell, width),
        angle=(thing.angle - 90) % 360,
        offset=(y, -x),
    )
