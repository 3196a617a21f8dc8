"""What was done in each episode, put together from the rollouts it lasted for, to be recorded.

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
_Piece = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Trace:
    """An episode as it was played in training.

    Attributes:
        seed: of the episode.
        terminated: whether the world ended it, and not time.
        statistics: what the environment said at its end.
        pieces: consecutive parts of it; views of copies of rollouts, until they are asked for.
    """

    seed: int
    terminated: bool
    statistics: dict[str, float]
    pieces: Sequence[_Piece]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Give (L, ...) actions, (L,) rewards, (L,) values and (L, A) probabilities."""
        return {name: np.concatenate([piece[name] for piece in self.pieces]) for name in TRACED}


class Traces:
    """Follows the episode that each of N environments is in the midst of.

    Args:
        rollout: any, to know what things look like.
    """

    def __init__(self, rollout: Rollout) -> None:
        num_envs = rollout.rewards.shape[1]
        nothing = {name: part[:0, 0] for name, part in _copies(rollout).items()}
        self._in_flight: list[list[_Piece]] = [[nothing] for _ in range(num_envs)]

    def follow(
        self, rollout: Rollout, ends: Collection[tuple[int, int]]
    ) -> dict[tuple[int, int], list[_Piece]]:
        """Take in a rollout.

        Args:
            rollout: what happened.
            ends: env step and environment of each episode that ended in it. What `terminated`
                anywhere else was a life, in the midst of an episode that goes on; what was
                `truncated` was lost.

        Returns:
            The pieces of each episode that ended in it, by env step of the rollout and environment.
        """
        copies, dones = _copies(rollout), rollout.truncated.cpu().numpy().copy()
        for t, lane in ends:
            dones[t, lane] = True
        ended = {}
        for lane, pieces in enumerate(self._in_flight):
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
        """Take in a rollout, and give the episodes that ended in it.

        Args:
            rollout: see `follow`.
            ended: of each its last env step in the rollout, environment, seed and statistics.
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
        """Begin anew in an environment."""
        del self._in_flight[lane][1:]

    def state(self) -> dict[str, Tensor]:
        """Give what is in flight, each part of each environment by `part/number`."""
        return {
            f"{name}/{lane}": torch.from_numpy(np.concatenate([piece[name] for piece in pieces]))
            for lane, pieces in enumerate(self._in_flight)
            for name in TRACED
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on with what `state` gave."""
        for lane, pieces in enumerate(self._in_flight):
            self.forget(lane)
            pieces.append({name: state[f"{name}/{lane}"].numpy() for name in TRACED})


def _copies(rollout: Rollout) -> _Piece:
    # The rollout's own memory is soon written to again.
    return {name: getattr(rollout, name).cpu().numpy().copy() for name in TRACED}
