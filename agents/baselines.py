"""Players that learned nothing, beside whom every score is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

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
        self, obs: Obs, memory_state: Tensor, episode_starts: Tensor, draws: Tensor | None
    ) -> Decision:
        """See `Player.act`; probabilities and values are not estimated, and nothing is likely."""
        if draws is None:
            raise ValueError("a random player draws its actions: it cannot be greedy")
        return _decision(self._choose(draws), memory_state)

    def _choose(self, draws: Tensor) -> Tensor:
        space = self.action_space
        if isinstance(space, spaces.Box):
            return draws * 2 - 1
        if isinstance(space, spaces.MultiBinary):
            return (draws * 2).long()
        if isinstance(space, spaces.MultiDiscrete):
            return (draws * torch.as_tensor(np.asarray(space.nvec))).long()
        assert isinstance(space, spaces.Discrete)
        return (draws[:, 0] * int(space.n)).long()


class NoopPlayer(RandomPlayer):
    """Always takes action 0, which presses nothing in Doom."""

    def _choose(self, draws: Tensor) -> Tensor:
        return torch.zeros_like(super()._choose(draws))


def _decision(actions: Tensor, memory_state: Tensor) -> Decision:
    nothing = torch.zeros(len(actions))
    return Decision(actions, nothing, nothing, torch.zeros(len(actions), 0), memory_state)
