"""Traces: the steps of each episode, joined from consecutive rollouts, so that it can be recorded.

Axes: T rollout length, N environments, L env steps of an episode, A choices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.rollout import Rollout

TRACED = ("actions", "rewards", "values", "probabilities")
"""The fields of rollouts that traces contain."""

_Piece = Mapping[str, NDArray[np.generic]]  # Consecutive steps of an episode, by field.


@dataclass(frozen=True)
class Trace:
    """The steps of an episode of the training.

    Attributes:
        seed: seed of the episode.
        terminated: whether the environment ended it; otherwise it was truncated.
        statistics: its statistics, as the environment returned them at its end, by name.
        pieces: its consecutive parts; `arrays` joins them.
    """

    seed: int
    terminated: bool
    statistics: dict[str, float]
    pieces: Sequence[_Piece]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return its steps by field, as copies.

        `actions` are (L,) or (L, ...), `rewards` and `values` (L,) float32, and `probabilities`
        (L, A) float32.
        """
        return {name: np.concatenate([piece[name] for piece in self.pieces]) for name in TRACED}


class Traces:
    """Collects the steps of the episode in progress in each of N environments.

    Args:
        rollout: any rollout, as an example of shapes and dtypes.
    """

    def __init__(self, rollout: Rollout) -> None:
        num_envs = rollout.rewards.shape[1]
        empty = {name: part[:0, 0] for name, part in _copies(rollout).items()}
        # Each list starts with an empty piece, because nothing else may be there to concatenate.
        self._in_progress: list[list[_Piece]] = [[empty] for _ in range(num_envs)]

    def follow(
        self, rollout: Rollout, ends: Collection[tuple[int, int]]
    ) -> dict[tuple[int, int], list[_Piece]]:
        """Append the steps of the next rollout.

        Args:
            rollout: the rollout.
            ends: env step and environment of each episode that ended in it. If a step `terminated`
                and is not among them, only a life ended, and the episode continues. If a step was
                `truncated` and is not among them, the episode was lost, and its steps are dropped.

        Returns:
            The pieces of each episode that ended in it or was lost, by env step and environment.
        """
        copies, dones = _copies(rollout), rollout.truncated.cpu().numpy().copy()
        for t, lane in ends:
            dones[t, lane] = True
        ended = {}
        for lane, pieces in enumerate(self._in_progress):
            begin = 0
            for last in np.flatnonzero(dones[:, lane]).tolist():
                whole = [*pieces, {n: part[begin : last + 1, lane] for n, part in copies.items()}]
                ended[last, lane] = whole
                begin = last + 1
                del pieces[1:]
            pieces.append({name: part[begin:, lane] for name, part in copies.items()})
        return ended

    def episodes(
        self, rollout: Rollout, ended: Iterable[tuple[int, int, int, dict[str, float]]]
    ) -> list[Trace]:
        """Append the steps of the next rollout, and return the episodes that ended in it.

        Args:
            rollout: the rollout.
            ended: for each episode that ended in it, its last env step in the rollout, its
                environment, its seed and its statistics.

        Returns:
            The episodes, in the order of `ended`.
        """
        ended = list(ended)
        pieces = self.follow(rollout, [(t, lane) for t, lane, *_ in ended])
        terminated = rollout.terminated.cpu().numpy()
        return [
            Trace(
                seed=seed,
                terminated=bool(terminated[t, lane]),
                statistics=statistics,
                pieces=pieces[t, lane],
            )
            for t, lane, seed, statistics in ended
        ]

    def forget(self, lane: int) -> None:
        """Drop the steps of the episode in progress in an environment."""
        del self._in_progress[lane][1:]

    def state(self) -> dict[str, Tensor]:
        """Return the steps of the episodes in progress, by field and environment.

        The names are as in `rewards/3`; first axis L.
        """
        return {
            f"{name}/{lane}": torch.from_numpy(np.concatenate([piece[name] for piece in pieces]))
            for lane, pieces in enumerate(self._in_progress)
            for name in TRACED
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the steps of the episodes in progress by those that `state` returned."""
        for lane, pieces in enumerate(self._in_progress):
            self.forget(lane)
            pieces.append({name: state[f"{name}/{lane}"].numpy() for name in TRACED})


def _copies(rollout: Rollout) -> _Piece:
    # Copies, because samplers reuse the memory of rollouts.
    return {name: getattr(rollout, name).cpu().numpy().copy() for name in TRACED}
