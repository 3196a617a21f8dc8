"""Maps that are generated: `maps:KIND`, one map for each episode.

`MAPS` lists the kinds. A kind is a frozen dataclass of options and a class that makes a map of a
seed, see `envs.doom.maps.kind`. A new kind is a file with both, and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import msgspec

from envs.doom.maps.arena import Arena, ArenaConfig
from envs.doom.maps.config import MapConfig, NoMap
from envs.doom.maps.corridors import Corridors, CorridorsConfig
from envs.doom.maps.gather import Gather, GatherConfig
from envs.doom.maps.key import Key, KeyConfig
from envs.doom.maps.kind import Kind, named_kind
from envs.doom.maps.maze import Maze, MazeConfig
from envs.doom.maps.two_colours import TwoColours, TwoColoursConfig
from envs.errors import EnvError

__all__ = ["MAPS", "AnyMap", "MapConfig", "NoMap", "kind_of", "map_options", "options_type"]

MAPS: dict[str, tuple[type[MapConfig], type[Kind[Any]]]] = {
    "maze": (MazeConfig, Maze),
    "gather": (GatherConfig, Gather),
    "arena": (ArenaConfig, Arena),
    "key": (KeyConfig, Key),
    "two_colours": (TwoColoursConfig, TwoColours),
    "corridors": (CorridorsConfig, Corridors),
}
"""Kinds of generated maps."""

PREFIX = "maps:"
AnyMap = MapConfig | NoMap


def kind_of(env: str) -> str | None:
    """Return the kind of maps that an environment's name names; None if it names none.

    Raises:
        EnvError: If there is no such kind.
    """
    return named_kind(env, PREFIX, MAPS, "maps")


def options_type(env: str) -> type[AnyMap]:
    """Return the class of the options that an environment's maps have.

    Raises:
        EnvError: If the environment is a kind of maps that does not exist.
    """
    kind = kind_of(env)
    return NoMap if kind is None else MAPS[kind][0]


def map_options(env: str, given: Any) -> AnyMap:
    """Return the options of an environment's maps.

    Args:
        env: the environment's name.
        given: the options, or a dictionary of those that are not the default, as JSON has it.

    Raises:
        ValueError: If they are not options of this environment, or out of range.
    """
    try:
        wanted = options_type(env)
    except EnvError:  # It is reported when the environment is made.
        wanted = NoMap
    if given is None or isinstance(given, NoMap) or given == {}:
        return wanted()
    if isinstance(given, wanted):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(f"map has options of another environment than {env}")
    names = [field.name for field in fields(wanted)]
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        there_are = f"there are {', '.join(names)}" if names else "its maps are not generated"
        raise ValueError(f"{unknown} is not an option of {env}; {there_are}")
    try:
        return msgspec.convert(dict(given), wanted)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
