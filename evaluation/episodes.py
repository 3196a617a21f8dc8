"""Episodes as they are recorded: a seed and actions re-simulate one; the rest explains it.

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

from agents.checkpoint import FileError, write_atomically


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode.

    Attributes:
        seed: of the episode.
        greedy: whether actions were the most likely ones or drawn.
        actions: (T,) or (T, A), elements of the action space.
        rewards: (T,) float64, native.
        values: (T,) float32, the critic's.
        probabilities: (T, A) float32, of every choice; A is 0 where actions are continuous.
        statistics: what the environment said at the end: return `r`, length `l` and others.
    """

    seed: int
    greedy: bool
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    values: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    statistics: dict[str, float]

    @property
    def episode_return(self) -> float:
        """The sum of native rewards."""
        return float(self.statistics["r"])


# What NumPy and the standard library raise for archives that are cut off, foreign or garbled.
_DAMAGE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError),
    *(MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
_ARRAYS = ("actions", "rewards", "values", "probabilities")
_MAX_BYTES = 2**26  # of all arrays; half an hour of Doom takes less than a hundredth of it


def save_episode(path: Path, episode: Episode, env: dict[str, Any]) -> None:
    """Write an episode as .npz.

    Args:
        path: where.
        episode: what.
        env: fields of the configuration of the world it was played in.
    """
    about = {
        "seed": episode.seed,
        "greedy": episode.greedy,
        "statistics": episode.statistics,
        "env": env,
    }
    buffer = io.BytesIO()
    arrays = {name: getattr(episode, name) for name in _ARRAYS}
    np.savez_compressed(buffer, about=np.array(json.dumps(about)), **arrays)
    write_atomically(path, buffer.getvalue())


def load_episode(path: Path) -> tuple[Episode, dict[str, Any]]:
    """Read an episode and the configuration of its world.

    Raises:
        FileError: If it is not one, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
                raise ValueError("it is too large")
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays = {name: file[name] for name in _ARRAYS}
        episode = Episode(
            seed=int(about["seed"]),
            greedy=bool(about["greedy"]),
            statistics={k: float(v) for k, v in about["statistics"].items()},
            **arrays,
        )
        env = dict(about["env"])
    except FileNotFoundError:
        raise FileError(f"there is no episode at {path}") from None
    except _DAMAGE as error:
        raise FileError(f"{path} is not a recorded episode, or is damaged") from error
    return episode, env
