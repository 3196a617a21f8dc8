"""PPO whose critic learns symmetric logarithms of returns (Hafner et al. 2023, equations 9 and 10).

    python train.py basic --import benchmarks/value_targets/symlog.py --reward-scale 1

The critic's output v stands for a value of symexp(v), so that large returns need no scale.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from agents import AGENTS, PPO, PPOConfig
from agents.rollout import Rollout


def symlog(x: Tensor) -> Tensor:
    """Return sign(x) ln(|x| + 1)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """Return the inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


class SymlogPPO(PPO):
    """PPO whose values are symmetric logarithms."""

    def estimate(self, rollout: Rollout, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate advantages from the values that the critic's outputs stand for."""
        rollout = replace(
            rollout,
            values=symexp(rollout.values),
            last_values=symexp(rollout.last_values),
            # No value is needed where an episode was not truncated; symexp(0) is 0.
            final_values=symexp(rollout.final_values),
        )
        advantages, returns = super().estimate(rollout, rewards)
        return advantages, symlog(returns)


AGENTS["ppo"] = (PPOConfig, SymlogPPO)
