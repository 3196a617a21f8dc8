"""Scaling rewards by the standard deviation of returns.

Axes: T rollout length, N environments.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perception.normalization import RunningMeanStd

_CLIP = 10.0  # The default of Stable-Baselines3's VecNormalize (`clip_reward`).


class RewardScaler(RunningMeanStd):
    """Divides rewards by the running deviation of the discounted return, and clips them to +-10.

    It computes the same as Stable-Baselines3's VecNormalize does for rewards, except that the
    statistics already include the whole rollout that is scaled.

    Args:
        num_envs: N.
        gamma: discount of an env step.

    Attributes:
        running: (N,) float32, the discounted return of each episode in progress.
    """

    running: Tensor

    def __init__(self, num_envs: int, gamma: float) -> None:
        super().__init__(1)
        self.gamma = gamma
        self.register_buffer("running", torch.zeros(num_envs))

    @torch.no_grad()
    def forward(self, rewards: Tensor, dones: Tensor) -> Tensor:
        """Scale the rewards of the next rollout.

        Args:
            rewards: (T, N) float32.
            dones: (T, N) bool, whether an episode ended with the step.

        Returns:
            (T, N) float32 in [-10, 10].
        """
        returns = []
        for reward, done in zip(rewards, dones, strict=True):
            self.running.mul_(self.gamma).add_(reward)
            returns.append(self.running.clone())
            self.running.mul_(~done)
        self.update(torch.stack(returns).reshape(-1, 1))
        return (rewards / self.deviation).clamp(-_CLIP, _CLIP).float()
