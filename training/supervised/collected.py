"""What data sets have in common that are collected once by playing Doom, and kept in a file.

Axes: B examples, H, W, C the screen.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from agents.policy import Specs, observation_specs
from envs import DoomEnv, EnvConfig, StoppedError
from envs.config import Observation
from envs.doom.engine import remove_leftovers
from evaluation.printing import print_line
from perception import ImageSpec
from storage.arrays import read_arrays, write_arrays
from storage.files import DamagedError, FileError, check_writable
from training.supervised.task import Part, TaskConfig

PARTS: tuple[Part, ...] = ("train", "validation", "test")
SEEDS_APART = 1_000_000
"""Episodes of a part have seeds below this, added to the part's first one."""
_FOLDER = Path("data")
_MAX_BYTES = 2**31  # Of all arrays.

DataT = TypeVar("DataT")
Kinds = Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
"""Shape and dtype of arrays by name."""
Stops = Callable[[], bool]
"""Returns whether to stop."""


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
    observation: Observation = "palette"
    """How pixels are seen. palette: Doom's colour indices, as agents see them by default."""
    height: int = 60
    """Height of the screen in pixels."""
    width: int = 80
    """Width of the screen in pixels."""
    frame_stack: int = 1
    """How many of the last screens are seen together, oldest first along the channels."""

    @property
    def fewest(self) -> int:
        """The smallest number of examples of which each part gets one."""
        return 6

    def __post_init__(self) -> None:
        """Check ranges."""
        number = getattr(self, self.what)
        if not self.fewest <= number <= 2**20:
            raise ValueError(f"{self.what} must be between {self.fewest} and 2^20, got {number}")
        playable = self.playable()
        if unknown := [name for name in self.scenarios if name not in playable]:
            raise ValueError(f"{self.lacking} {unknown[0]!r}; scenarios are {', '.join(playable)}")
        if not self.scenarios or len(set(self.scenarios)) < len(self.scenarios):
            raise ValueError("scenarios must be named, each once")
        size = number * self.frames_of_example * math.prod(self.spec.shape)
        if size > _MAX_BYTES // 2:  # What is seen on them takes as much again, at most.
            raise ValueError(
                f"{number:,} {self.what} of this size are {size / 2**30:,.1f} GiB, and at most "
                f"{_MAX_BYTES // 2 // 2**30} GiB are possible; choose fewer or smaller ones"
            )

    @property
    def frames_of_example(self) -> int:
        """The observations in an example."""
        return 1

    @property
    def seen(self) -> dict[str, Any]:
        """How an environment is observed, as fields of `EnvConfig`."""
        names = ("observation", "height", "width", "frame_stack")
        return {name: getattr(self, name) for name in names}

    @property
    def spec(self) -> ImageSpec:
        """The specification of an observation; the palette is that of the first scenario."""
        env = DoomEnv(EnvConfig(env=self.scenarios[0], **self.seen))  # Starts no engine.
        spec = observation_specs(env.observation_space, env.metadata)["obs"]
        assert isinstance(spec, ImageSpec)
        return spec

    def newest(self, screens: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the last screen of stacked ones, (..., H, W, 1) or (..., H, W, 3) for RGB."""
        return screens[..., -3 if self.observation == "rgb" else -1 :]

    def coloured(self, screens: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the last screen of stacked ones as RGB, (..., H, W, 3) uint8.

        Args:
            screens: (..., H, W, C) uint8.
            palette: (256, 3) uint8 RGB, of `palette` screens.
        """
        newest = self.newest(screens)
        if self.observation == "palette":
            colours: NDArray[np.uint8] = palette[newest[..., 0]]
            return colours
        return np.broadcast_to(newest, (*newest.shape[:-1], 3))

    def playable(self) -> Collection[str]:
        """Return the scenarios that can be named."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Return what the examples depend on, as JSON."""
        return {
            self.what: getattr(self, self.what),
            "scenarios": list(self.scenarios),
            **self.seen,
        }

    @property
    def path(self) -> Path:
        """The file of the data."""
        if self.data is not None:
            return self.data
        text = json.dumps(self.options(), sort_keys=True)
        return _FOLDER / f"{self.what}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.npz"


ConfigT = TypeVar("ConfigT", bound=CollectedConfig)


def never() -> bool:
    """Return that there is no reason to stop."""
    return False


def collect_once(
    config: ConfigT, collect: Callable[[ConfigT, Stops], Any], stops: Stops = never
) -> None:
    """Collect examples into their file, unless it exists.

    Args:
        config: which examples.
        collect: returns them; its attributes are arrays.
        stops: returns whether to stop.

    Raises:
        EnvError: If a scenario cannot be played.
        FileError: If a policy of the project is damaged, the scenarios have different palettes, or
            the file cannot be written.
        StoppedError: If it was stopped; no file is then written.
    """
    if config.path.exists():
        return
    check_writable(config.path.parent)
    remove_leftovers()  # Of a process that was killed as it collected.
    number = getattr(config, config.what)
    print_line(
        f"collecting {number:,} {config.what} of Doom into {config.path}, which takes minutes",
        file=sys.stderr,
    )
    data = collect(config, stops)
    write_arrays(config.path, vars(data), config.options(), lambda: check_going_on(stops))


def stacked(rows: Sequence[Mapping[str, Any]], dtypes: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns of examples as arrays, by name.

    Args:
        rows: one for each example.
        dtypes: of each column.
    """
    columns = {
        name: [np.asarray(row[name], dtype) for row in rows] for name, dtype in dtypes.items()
    }
    return {name: np.stack(column) for name, column in columns.items()}


def check_going_on(stops: Stops) -> None:
    """Check that there is no reason to stop.

    Raises:
        StoppedError: If there is one.
    """
    if stops():
        raise StoppedError


def common_palette(scenarios: Sequence[str]) -> NDArray[np.uint8]:
    """Return the palette of scenarios, (256, 3) uint8 RGB.

    Raises:
        FileError: If they have different ones.
    """
    palettes = {name: DoomEnv(EnvConfig(env=name)).palette for name in scenarios}
    first = palettes[scenarios[0]]
    if others := [name for name, palette in palettes.items() if (palette != first).any()]:
        raise FileError(
            f"{others[0]} has another palette than {scenarios[0]}; choose --scenarios with the same"
        )
    return first


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


def screen_specs(config: CollectedConfig, palette: NDArray[np.uint8]) -> Specs:
    """Return the specification of `image`, a screen as agents observe it.

    Args:
        config: how it is observed.
        palette: (256, 3) uint8 RGB, of the data.
    """
    colours = tuple((int(red), int(green), int(blue)) for red, green, blue in palette)
    return {"image": replace(config.spec, palette=colours)}
