"""PPO with PopArt, adaptively normalised values (van Hasselt et al. 2016; Hessel et al. 2019).

    python train.py basic --import benchmarks/value_targets/popart.py --reward-scale 1

The critic's output v stands for a value of mean + deviation * v of running statistics of returns.
When these change, the critic's layer is changed so that values stay (van Hasselt, equation 9). The
statistics are not in checkpoints.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from agents import AGENTS, PPO, PPOConfig
from agents.rollout import Rollout

_RATE = 0.05  # Weight of a rollout in the running moments, once 20 rollouts have been learned from.


class PopArtPPO(PPO):
    """PPO whose values have running mean 0 and standard deviation 1."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._num_rollouts = 0
        self._moments = torch.tensor([0.0, 1.0], device=self.policy.device)  # Of order 1 and 2.

    @property
    def _mean(self) -> Tensor:
        return self._moments[0]

    @property
    def _deviation(self) -> Tensor:
        return (self._moments[1] - self._moments[0] ** 2).clamp(min=1e-8).sqrt()

    @torch.no_grad()
    def estimate(self, rollout: Rollout, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate advantages from denormalised values, and normalise the returns."""
        mean, deviation = self._mean, self._deviation
        rollout = replace(
            rollout,
            values=mean + deviation * rollout.values,
            last_values=mean + deviation * rollout.last_values,
            final_values=torch.where(rollout.truncated, mean + deviation * rollout.final_values, 0),
        )
        advantages, returns = super().estimate(rollout, rewards)
        self._num_rollouts += 1
        rate = max(_RATE, 1 / self._num_rollouts)
        moments = torch.stack([returns.mean(), returns.pow(2).mean()])
        self._moments = self._moments + rate * (moments - self._moments)
        weight, bias = map(self.policy.critic.get_parameter, ("weight", "bias"))
        weight.mul_(deviation / self._deviation)
        bias.copy_((deviation * bias + mean - self._mean) / self._deviation)
        return advantages, (returns - self._mean) / self._deviation


AGENTS["ppo"] = (PPOConfig, PopArtPPO)
