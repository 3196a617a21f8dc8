"""What data sets have in common that are collected once by playing Doom, and kept in a file.

Axes: B examples, H, W the screen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from agents.policy import Specs
from perception import ImageSpec
from storage.arrays import read_arrays
from storage.files import DamagedError, FileError
from training.supervised.task import Part, TaskConfig

PARTS: tuple[Part, ...] = ("train", "validation", "test")
SEEDS_APART = 1_000_000
"""Episodes of a part have seeds below this, added to the part's first one."""
_FOLDER = Path("data")
_MAX_BYTES = 2**31  # Of all arrays.

DataT = TypeVar("DataT")
Kinds = Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
"""Shape and dtype of arrays by name."""


@dataclass(frozen=True, kw_only=True)
class CollectedConfig(TaskConfig):
    """Which examples are collected; the same options always make the same ones.

    Attributes:
        what: what the examples are called; a field of this name is their number.
        lacking: what is said of a scenario that cannot be played.

    Raises:
        ValueError: If a value is out of range.
    """

    what: ClassVar[str]
    lacking: ClassVar[str] = "there is no scenario"

    data: Path | None = None
    """File of the data, which are collected if it is missing. None: one in the folder data."""
    scenarios: tuple[str, ...] = ()
    """Scenarios that are played."""
    height: int = 60
    """Height of the screen in pixels."""
    width: int = 80
    """Width of the screen in pixels."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in (self.what, "height", "width"):
            if not 1 <= getattr(self, name) <= 2**20:
                raise ValueError(f"{name} must be between 1 and 2^20, got {getattr(self, name)}")
        playable = self.playable()
        if unknown := [name for name in self.scenarios if name not in playable]:
            raise ValueError(f"{self.lacking} {unknown[0]!r}; scenarios are {', '.join(playable)}")
        if not self.scenarios or len(set(self.scenarios)) < len(self.scenarios):
            raise ValueError("scenarios must be named, each once")

    def playable(self) -> Collection[str]:
        """Return the scenarios that can be named."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Return what the examples depend on, as JSON."""
        raise NotImplementedError

    @property
    def path(self) -> Path:
        """The file of the data."""
        if self.data is not None:
            return self.data
        text = json.dumps(self.options(), sort_keys=True)
        return _FOLDER / f"{self.what}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.npz"


def read_collected(
    path: Path,
    config: CollectedConfig,
    make: Callable[..., DataT],
    check: Callable[[DataT], None],
) -> tuple[DataT, str]:
    """Read examples and their SHA-256 from a file.

    Args:
        path: the file.
        config: what they were collected by.
        make: makes them of the arrays by name.
        check: raises ValueError if they are no such examples.

    Raises:
        DamagedError: If it is damaged, or holds no such examples.
        FileError: If it holds those of another configuration.
    """
    arrays, about, checksum = read_arrays(path, _MAX_BYTES)
    for name, value in config.options().items():
        if about.get(name) != value:
            raise FileError(
                f"{path} holds {config.what} with {name} {about.get(name)!a:.60}, not "
                f"{value!a:.60}; name another file with --data, or remove this one"
            )
    try:
        data = make(**arrays)
        check(data)
    except (TypeError, ValueError) as error:
        raise DamagedError(f"{path} holds no {config.what}: {error}") from error
    return data, checksum


def check_arrays(data: Any, kinds: Kinds, classes: Mapping[str, Sequence[Any]]) -> None:
    """Check shapes, dtypes and ranges of the arrays of examples from a file.

    Args:
        data: has the arrays as attributes.
        kinds: shape and dtype of each.
        classes: what some of them are indices of.

    Raises:
        ValueError: If they are not those of examples.
    """
    for name, (shape, dtype) in kinds.items():
        array = getattr(data, name)
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
    for name, values in classes.items():
        array = getattr(data, name)
        if array.size and array.max() >= len(values):
            raise ValueError(f"{name} is out of range")


def quota(total: int, share: float, number: int, players: int) -> int:
    """Return how many examples of a part one of several players contributes.

    Args:
        total: the examples of all parts.
        share: of the part.
        number: of the player, from 0.
        players: the number of players.
    """
    wanted = round(total * share)
    return wanted // players + (number < wanted % players)


def screen_specs(shape: Sequence[int], palette: NDArray[np.uint8]) -> Specs:
    """Return the specification of `image`, a screen of palette indices.

    Args:
        shape: (H, W, 1).
        palette: (256, 3) uint8 RGB.
    """
    height, width, channels = shape
    colours = tuple((int(red), int(green), int(blue)) for red, green, blue in palette)
    size = (height, width, channels)
    return {"image": ImageSpec(shape=size, channels=("palette",), palette=colours)}
