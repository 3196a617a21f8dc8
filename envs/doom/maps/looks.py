"""What maps look like: lists of textures, the monsters' looks, and shifts of colours.

Textures and flats are those of Freedoom 2. The lists for training and for testing are disjoint, as
in the maps of Dosovitskiy and Koltun (2017), "Learning to Act by Predicting the Future".
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.doom.maps.config import MapConfig, MonsterLook, Textures
from envs.doom.maps.level import Room

WALLS: dict[Textures, tuple[str, ...]] = {
    "train": (
        *("STARTAN3", "BROWN1", "BRICK7", "STONE2", "METAL1", "GRAY7", "TEKGREN2", "WOOD1"),
        *("MARBLE1", "BRONZE1", "CEMENT9", "ROCK2", "SILVER1", "TANROCK2", "STUCCO1", "BIGBRIK1"),
    ),
    "test": (
        *("STARG3", "BROWNGRN", "BRICK10", "STONE6", "METAL5", "GRAYBIG", "TEKWALL4", "WOOD12"),
        *(
            "MARBGRAY",
            "BRONZE4",
            "COMPBLUE",
            "ASHWALL2",
            "SPACEW3",
            "ROCKRED1",
            "SHAWN2",
            "ZIMMER1",
        ),
    ),
}
FLOORS: dict[Textures, tuple[str, ...]] = {
    "train": (
        "FLOOR0_1",
        "FLOOR4_8",
        "FLOOR5_1",
        "FLOOR7_1",
        "FLAT1",
        "FLAT5_5",
        "RROCK13",
        "MFLR8_1",
    ),
    "test": (
        "FLOOR0_3",
        "FLOOR4_1",
        "FLOOR5_4",
        "FLOOR6_2",
        "FLAT14",
        "FLAT8",
        "RROCK09",
        "GRASS1",
    ),
}
CEILINGS: dict[Textures, tuple[str, ...]] = {
    "train": ("CEIL1_1", "CEIL3_5", "CEIL5_1", "FLAT4", "FLAT19"),
    "test": ("CEIL1_2", "CEIL3_1", "CEIL4_2", "FLAT9", "FLAT20"),
}
DOORS = {"red": "M_RDOOR", "blue": "M_BDOOR"}
HOSTILE_FLATS: dict[Textures, str] = {"train": "NUKAGE1", "test": "SLIME01"}
"""What a hostile floor looks like."""

_SPRITES: dict[MonsterLook, str] = {
    "zombie": "POSS",
    "sergeant": "SPOS",
    "commando": "CPOS",
    "marine": "PLAY",
}
# ZDoom's own ZombieMan, drawn with the sprites of somebody else. It behaves as before.
_DISGUISED = """\
actor Disguised : ZombieMan replaces ZombieMan
{{
  states
  {{
  Spawn:
    {0} A 10 A_Look
    {0} B 10 A_Look
    loop
  See:
    {0} AABBCCDD 4 A_Chase
    loop
  Missile:
    {0} E 10 A_FaceTarget
    {0} F 8 A_PosAttack
    {0} E 8
    goto See
  Pain:
    {0} G 3
    {0} G 3 A_Pain
    goto See
  Death:
    {0} H 5
    {0} I 5 A_Scream
    {0} J 5 A_NoBlocking
    {0} K 5
    {0} L -1
    stop
  }}
}}
"""


def room_looks(config: MapConfig, rng: random.Random, count: int, **fixed: Any) -> tuple[Room, ...]:
    """Return the looks of a number of rooms, which have different walls while there are enough.

    Args:
        config: options of the maps.
        rng: the source of chance.
        count: number of rooms.
        **fixed: attributes that all rooms share.
    """
    names = WALLS[config.textures]
    walls = rng.sample(names, len(names))
    looks = [
        Room(
            wall=walls[i % len(walls)],
            floor_flat=rng.choice(FLOORS[config.textures]),
            ceiling_flat=rng.choice(CEILINGS[config.textures]),
            light=rng.randint(*config.light),
        )
        for i in range(count)
    ]
    return tuple(replace(look, **fixed) for look in looks)


def decorate(look: MonsterLook) -> bytes:
    """Return a DECORATE lump, which redefines the engine's zombie; empty if it stays as it is."""
    return b"" if look == "zombie" else _DISGUISED.format(_SPRITES[look]).encode()


def colour_shift(config: MapConfig, palette: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return the palette index that is shown instead of each index, None if it is the same one.

    The shifted colour is replaced by the palette's nearest one, so that observations of all kinds
    remain what they are: indices into the same palette, or its colours.

    Args:
        config: options of the maps.
        palette: (256, 3) RGB.

    Returns:
        (256,) uint8 or None.
    """
    if config.colour_gamma == 1.0 and not config.swapped_colours:
        return None
    wanted = 255.0 * (palette / 255.0) ** config.colour_gamma
    if config.swapped_colours:
        wanted = wanted[:, ::-1]
    away = ((wanted[:, None] - palette[None].astype(np.float64)) ** 2).sum(axis=2)
    return np.asarray(away.argmin(axis=1), np.uint8)
