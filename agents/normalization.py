"""Running mean and variance, to normalise observations and to scale rewards.

Axes: B batch, D numbers, T rollout length, N environments.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMeanStd(nn.Module):
    """Mean and variance of all that was seen (Chan et al. 1982, parallel algorithm).

    The statistics are buffers: they are saved and loaded with the module that holds this one.

    Args:
        size: D.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        # In double precision, because counts grow to billions.
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        """Take (B, D) numbers into account."""
        batch = batch.double()
        mean, variance, count = batch.mean(0), batch.var(0, unbiased=False), len(batch)
        total = self.count + count
        delta = mean - self.mean
        squares = self.variance * self.count + variance * count
        squares = squares + delta**2 * self.count * count / total
        self.mean.add_(delta * count / total)
        self.variance.copy_(squares / total)
        self.count.copy_(total)


class ObservationNormalizer(RunningMeanStd):
    """Shift and scale vectors to mean 0 and variance 1, clipped to +-10."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Normalise (..., D) float32 with the statistics so far."""
        deviation = (self.variance + 1e-8).sqrt()
        return ((vectors - self.mean) / deviation).clamp(-10.0, 10.0).float()


class RewardScaler(RunningMeanStd):
    """Divide rewards by the running deviation of the discounted return.

    The same as the reward half of Stable-Baselines3's VecNormalize, without clipping.

    Args:
        num_envs: N.
        gamma: discount of a step.
    """

    running: Tensor

    def __init__(self, num_envs: int, gamma: float) -> None:
        super().__init__(1)
        self.gamma = gamma
        self.register_buffer("running", torch.zeros(num_envs))

    @property
    def deviation(self) -> Tensor:
        """What rewards are divided by, (1,) float64."""
        return (self.variance + 1e-8).sqrt()

    @torch.no_grad()
    def forward(self, rewards: Tensor, dones: Tensor) -> Tensor:
        """Scale the rewards of the next rollout.

        Args:
            rewards: (T, N) float32.
            dones: (T, N) bool.

        Returns:
            (T, N) float32.
        """
        returns = []
        for reward, done in zip(rewards, dones, strict=True):
            self.running.mul_(self.gamma).add_(reward)
            returns.append(self.running.clone())
            self.running.mul_(~done)
        self.update(torch.stack(returns).reshape(-1, 1))
        return (rewards / self.deviation).float()
