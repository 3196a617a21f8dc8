"""Players that learned nothing, beside whom every score is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from agents.policy import Decision, Obs


class RandomPlayer:
    """Draws every action uniformly; continuous ones from -1 to 1.

    Args:
        action_space: what to draw from.
    """

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space = action_space

    def initial_state(self, num_envs: int) -> Tensor:
        """See `Player.initial_state`."""
        return torch.zeros(0, num_envs, 0)

    def act(
        self,
        obs: Obs,
        memory_state: Tensor,
        episode_starts: Tensor,
        *,
        greedy: bool = False,
        generator: Generator | None = None,
    ) -> Decision:
        """See `Player.act`; probabilities and values are not estimated."""
        return _decision(self._draw(len(episode_starts), generator), memory_state)

    def _draw(self, num_envs: int, generator: Generator | None) -> Tensor:
        space = self.action_space
        if isinstance(space, spaces.Box):
            return torch.rand(num_envs, *space.shape, generator=generator) * 2 - 1
        if isinstance(space, spaces.MultiBinary):
            return torch.randint(2, (num_envs, *space.shape), generator=generator)
        if isinstance(space, spaces.MultiDiscrete):
            sizes = torch.as_tensor(np.asarray(space.nvec))
            return (torch.rand(num_envs, len(sizes), generator=generator) * sizes).long()
        assert isinstance(space, spaces.Discrete)
        return torch.randint(int(space.n), (num_envs,), generator=generator)


class NoopPlayer(RandomPlayer):
    """Always takes action 0, which presses nothing in Doom."""

    def _draw(self, num_envs: int, generator: Generator | None) -> Tensor:
        return torch.zeros_like(super()._draw(num_envs, generator))


def _decision(actions: Tensor, memory_state: Tensor) -> Decision:
    nothing = torch.zeros(len(actions))
    return Decision(actions, nothing, nothing, torch.zeros(len(actions), 0), memory_state)
