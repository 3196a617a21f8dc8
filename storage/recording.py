"""Recordings of episodes: seed and actions, from which an episode can be simulated again.

Rewards, values and probabilities are recorded with them, to explain what the policy did.
`training.recorder` records episodes of training, `training.evaluation` those of evaluations, and
`commands.score` those that are scored.

Axes: T env steps of the episode, A choices.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.arrays import DAMAGE, read_array
from storage.files import DamagedError, FileError, decode, open_regular, write_atomically


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode.

    Attributes:
        seed: seed of the episode.
        greedy: whether the most likely actions were taken; otherwise they were sampled.
        actions: (T,) or (T, A), elements of the action space.
        rewards: (T,) float64: native, unless the environment has wrappers that change them.
        values: (T,) float32, the critic's values of the observations, in native rewards.
        probabilities: (T, A) float32, of every choice; A is 0 where actions are continuous.
        terminated: whether the environment ended it; otherwise time ran out.
        gamma: the critic's discount of an env step; 0 if there was no critic.
        statistics: reported by the environment at the end: return `r`, length `l` and others.
    """

    seed: int
    greedy: bool
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    values: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    terminated: bool
    gamma: float
    statistics: dict[str, float]

    @property
    def episode_return(self) -> float:
        """The sum of the rewards."""
        return float(self.statistics["r"])

    @property
    def surprises(self) -> NDArray[np.float64]:
        """(T,) by how much each env step was better or worse than expected, in native rewards.

        This is the absolute temporal-difference error (Sutton and Barto 2018, equation 6.5). If the
        episode was truncated, the value of its last observation is not recorded, and the last entry
        is 0.
        """
        if not self.gamma:
            return np.zeros(len(self.rewards))
        following = np.append(self.values[1:], 0.0)
        errors = np.abs(self.rewards + self.gamma * following - self.values)
        if not self.terminated:
            errors[-1] = 0.0
        return errors


@dataclass(frozen=True, kw_only=True)
class Recording:
    """An episode with everything that is needed to simulate it again.

    Attributes:
        episode: the episode.
        env: fields of the configuration of its environment.
        game: the environment's fingerprint, see `envs.fingerprint`.
    """

    episode: Episode
    env: dict[str, Any]
    game: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _About:
    """What a recording contains beside its arrays; see `Episode` and `Recording`.

    Raises:
        ValueError: If a value is out of range.
    """

    format: int
    seed: int
    greedy: bool
    terminated: bool
    gamma: float
    statistics: dict[str, float]
    env: dict[str, Any]
    game: dict[str, str]

    def __post_init__(self) -> None:
        """Check ranges."""
        if not (0 <= self.seed < 2**31 and 0 <= self.gamma <= 1):
            raise ValueError(f"seed {self.seed} or gamma {self.gamma} is out of range")
        if not math.isfinite(self.statistics.get("r", math.nan)):
            raise ValueError("there is no finite return")


_FORMAT = 1
_ARRAYS = ("actions", "rewards", "values", "probabilities")
_PLAIN = ("seed", "greedy", "terminated", "gamma", "statistics")
# An hour of Doom needs about a hundredth of each of these.
_MAX_BYTES = 2**26  # Of all arrays, and of the file.
MOST_STEPS = 2**20
"""Env steps of an episode; recordings of longer ones are not read."""
_MOST_NUMBERS = 2**16  # Of an action, or of choices.


def save_recording(path: Path, recording: Recording) -> None:
    """Write a recording as .npz."""
    episode = recording.episode
    about = {
        "format": _FORMAT,
        **{name: getattr(episode, name) for name in _PLAIN},
        "env": recording.env,
        "game": recording.game,
    }
    buffer = io.BytesIO()
    arrays = {name: getattr(episode, name) for name in _ARRAYS}
    np.savez_compressed(buffer, about=np.array(json.dumps(about)), **arrays)
    write_atomically(path, buffer.getvalue())


def load_recording(path: Path) -> Recording:
    """Read a recording.

    Raises:
        FileError: If it is not a recording, is damaged, or is of another format.
    """
    try:
        with open_regular(path, _MAX_BYTES) as file, zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
                raise ValueError("it is too large")
            parsed = json.loads(str(read_array(archive, "about")))
            found = parsed.get("format")
            if found != _FORMAT:
                raise FileError(f"{path} is of format {found!a:.20}; this program reads {_FORMAT}")
            about = _decode_about(parsed)
            arrays: dict[str, Any] = {name: read_array(archive, name) for name in _ARRAYS}
        plain = {name: getattr(about, name) for name in _PLAIN}
        episode = Episode(**plain, **arrays)
        _expect_numbers(episode)
        return Recording(episode=episode, env=about.env, game=about.game)
    except DamagedError:
        raise FileError(f"there is no episode at {path}") from None
    except FileError:
        raise
    except DAMAGE as error:
        raise FileError(f"{path} is not a recorded episode, or is damaged") from error


def _decode_about(parsed: Any) -> _About:
    try:
        return decode(_About, parsed)
    except FileError as error:
        raise ValueError(str(error)) from error  # Its message does not name the file.


def _expect_numbers(episode: Episode) -> None:
    """Check shapes, types and values of the arrays.

    Raises:
        ValueError: If they are not those of an episode.
    """
    actions, steps = episode.actions, len(episode.actions)
    shapes = {(n, getattr(episode, n).shape[:1], getattr(episode, n).ndim) for n in _ARRAYS[1:]}
    wanted = {(name, (steps,), 1 + (name == "probabilities")) for name in _ARRAYS[1:]}
    if shapes != wanted or not 0 < steps <= MOST_STEPS or actions.ndim > 2:
        raise ValueError(f"arrays of {sorted(shapes)}")
    for name in _ARRAYS:
        array = getattr(episode, name)
        kinds = "if" if name == "actions" else "f"
        if array.dtype.kind not in kinds or not np.isfinite(array).all():
            raise ValueError(f"{name} are not numbers")
        if array.size > steps * _MOST_NUMBERS:
            raise ValueError(f"{name} are too many")
