"""Recordings of episodes: seed and actions, from which an episode can be simulated again.

Rewards, values and probabilities are recorded with them, to explain what the policy did.
`training.recorder` records episodes of training, `training.evaluation` those of evaluations, and
`commands.score` those that are scored.

Axes: T env steps of the episode, A choices.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.files import FileError, write_atomically


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode.

    Attributes:
        seed: seed of the episode.
        greedy: whether the most likely actions were taken; otherwise they were sampled.
        actions: (T,) or (T, A), elements of the action space.
        rewards: (T,) float64, native.
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
        """The sum of native rewards."""
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


# What NumPy and the standard library raise for archives that are truncated, foreign or corrupt.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
_FORMAT = 1
_ARRAYS = ("actions", "rewards", "values", "probabilities")
_PLAIN = ("seed", "greedy", "terminated", "gamma", "statistics")
_MAX_BYTES = 2**26  # Of all arrays; half an hour of Doom needs less than a hundredth of it.


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
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
                raise ValueError("it is too large")
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            if about.get("format") != _FORMAT:
                raise FileError(
                    f"{path} is of format {about.get('format')!r:.20}; this program reads {_FORMAT}"
                )
            arrays = {name: file[name] for name in _ARRAYS}
        episode = Episode(
            seed=int(about["seed"]),
            greedy=bool(about["greedy"]),
            terminated=bool(about["terminated"]),
            gamma=float(about["gamma"]),
            statistics={k: float(v) for k, v in about["statistics"].items()},
            **arrays,
        )
        _expect_shapes(episode)
        game = {str(name): str(text) for name, text in about["game"].items()}
        return Recording(episode=episode, env=dict(about["env"]), game=game)
    except FileNotFoundError:
        raise FileError(f"there is no episode at {path}") from None
    except FileError:
        raise
    except _DAMAGE as error:
        raise FileError(f"{path} is not a recorded episode, or is damaged") from error


def _expect_shapes(episode: Episode) -> None:
    steps = len(episode.actions)
    shapes = {(n, getattr(episode, n).shape[:1], getattr(episode, n).ndim) for n in _ARRAYS[1:]}
    wanted = {(name, (steps,), 1 + (name == "probabilities")) for name in _ARRAYS[1:]}
    if shapes != wanted or not steps:
        raise ValueError(f"arrays of {sorted(shapes)}")
