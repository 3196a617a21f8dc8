"""Baselines: players without learning, to which scores are compared.

Axes: N environments, A numbers of an action, D draws of an action.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from agents.policy import Decision, Obs


class RandomPlayer:
    """Samples every action uniformly; continuous ones from -1 to 1.

    Args:
        action_space: Discrete, MultiDiscrete, MultiBinary or Box.
    """

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space = action_space

    def initial_state(self, num_envs: int) -> Tensor:
        """See `Player.initial_state`."""
        return torch.zeros(0, num_envs, 0)

    def act(
        self, obs: Obs, memory_state: Tensor, episode_starts: Tensor, draws: Tensor | None
    ) -> Decision:
        """Choose actions; see `Policy.act`.

        In the result, logprobs and values are zeros, and probabilities are (N, 0).

        Raises:
            ValueError: If there are no draws.
        """
        if draws is None:
            raise ValueError("a random player cannot be greedy: it samples its actions")
        return _decision(self._choose(draws), memory_state)

    def _choose(self, draws: Tensor) -> Tensor:
        """Return the actions, (N,) or (N, A), for (N, D) uniform draws."""
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
    """Always takes action 0, which presses no button in Doom."""

    def _choose(self, draws: Tensor) -> Tensor:
        return torch.zeros_like(super()._choose(draws))


def _decision(actions: Tensor, memory_state: Tensor) -> Decision:
    zeros = torch.zeros(len(actions))
    return Decision(actions, zeros, zeros, torch.zeros(len(actions), 0), memory_state)
