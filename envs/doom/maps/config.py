"""Options that all kinds of generated maps have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Textures = Literal["train", "test"]
MonsterLook = Literal["zombie", "sergeant", "commando", "marine"]
MOST_MAPS = 2**29
_BRIGHTEST = 255


@dataclass(frozen=True, kw_only=True)
class NoMap:
    """Options of an environment whose map is not generated: none."""


@dataclass(frozen=True, kw_only=True)
class MapConfig:
    """How maps are generated, and drawn.

    Where an option has two values, each map draws one from this range, both ends included.

    Raises:
        ValueError: If a value is out of range.
    """

    num_maps: int | None = None
    """Maps of the training, which all its episodes share. None: every episode has its own."""
    first_map: int = 0
    """Number of the first of these maps: trainings that differ in it may have different maps."""
    size: tuple[int, int] = (3, 5)
    """Cells on a side."""
    textures: Textures = "train"
    """Which of two disjoint lists walls, floors and ceilings are drawn from."""
    light: tuple[int, int] = (144, 255)
    """Light of each room, 0 to 255."""
    colour_gamma: float = 1.0
    """Exponent of brightness: above 1 the picture is darker, below 1 brighter."""
    swapped_colours: bool = False
    """Exchange red and blue in the picture."""
    field_of_view: int = 90
    """Horizontal field of view in degrees, from the second frame of an episode on."""
    hud: bool = False
    """Draw the status bar over the lower part of the screen."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.num_maps is not None and self.num_maps < 1:
            raise ValueError(f"num_maps must be at least 1, got {self.num_maps}")
        if not 0 <= self.first_map <= MOST_MAPS - (self.num_maps or 0):
            raise ValueError(f"first_map must be between 0 and 2^29, got {self.first_map}")
        check_range("light", self.light, 0, _BRIGHTEST)
        if not 0.2 <= self.colour_gamma <= 5.0:
            raise ValueError(f"colour_gamma must be between 0.2 and 5, got {self.colour_gamma}")
        if not 30 <= self.field_of_view <= 150:
            raise ValueError(f"field_of_view must be between 30 and 150, got {self.field_of_view}")


def check_range(name: str, values: tuple[int, int], lowest: int, highest: int) -> None:
    """Check that an option is a range within bounds.

    Raises:
        ValueError: If it is not.
    """
    low, high = values
    if not lowest <= low <= high <= highest:
        raise ValueError(
            f"{name} must be two numbers from {lowest} to {highest}, the smaller one first, "
            f"got {low} {high}"
        )
