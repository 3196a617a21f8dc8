"""Proximal policy optimisation (Schulman et al. 2017).

The details follow "The 37 Implementation Details of Proximal Policy Optimization" (Huang et al.
2022); where they differ from it, Stable-Baselines3. Axes: t, n a minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from agents.agent import Agent, AgentConfig
from agents.gradients import Metrics
from agents.policy import PolicyOutput
from agents.rollout import Minibatch, Rollout
from agents.search_space import Choice, Range, SearchSpace
from agents.vtrace import vtrace_estimate


@dataclass(frozen=True, kw_only=True)
class PPOConfig(AgentConfig):
    """Hyper-parameters of PPO."""

    num_epochs: int = 4
    """Passes over a rollout in an update."""
    minibatch_size: int | None = 256
    """Env steps in a minibatch. None: the whole rollout."""
    clip_coef: float = 0.2
    """Relative change of an action's probability in an update at which its gradient becomes 0."""
    value_clip_coef: float | None = None
    """Change of a value in an update at which its gradient becomes 0. None: never."""
    vtrace: bool = False
    """Estimate advantages by V-trace, which corrects for an older policy, as with --overlap."""
    target_kl: float | None = None
    """Skip the rest of an update once the KL divergence from the policy that collected the rollout
    exceeds 1.5 times this value, in nats. None: never."""

    search_space: ClassVar[SearchSpace] = {
        **AgentConfig.search_space,
        "gae_lambda": Range(0.8, 1.0),
        "rollout_length": Choice((32, 64, 128, 256)),
        "num_epochs": Choice((2, 4, 8, 16)),
        "minibatch_size": Choice((64, 128, 256, 512)),
        "clip_coef": Choice((0.1, 0.2, 0.3)),
    }

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        for name in ("clip_coef", "value_clip_coef", "target_kl"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be greater than 0, got {value}")


class PPO(Agent[PPOConfig]):
    """Learns from each rollout several times, but limits the change of the policy in an update."""

    def estimate(self, rollout: Rollout, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate advantages by GAE, or by V-trace; see `Agent.estimate`."""
        if self.config.vtrace:
            # Not weighted by rho, because the loss contains the ratio to the older policy.
            advantages, targets, _ = vtrace_estimate(self, rollout, rewards)
            return advantages, targets
        return super().estimate(rollout, rewards)

    def loss(self, output: PolicyOutput, batch: Minibatch) -> tuple[Tensor, Metrics]:
        """Compute the clipped loss (Schulman et al. 2017, equations 7 and 9); see `Agent.loss`."""
        config = self.config
        distribution, values = output.distribution, output.values

        log_ratio = distribution.log_prob(batch.actions) - batch.logprobs
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - config.clip_coef, 1 + config.clip_coef)
        policy_loss = -torch.min(batch.advantages * ratio, batch.advantages * clipped).mean()

        if config.value_clip_coef is not None:
            change = (values - batch.values).clamp(-config.value_clip_coef, config.value_clip_coef)
            values = batch.values + change
        value_loss = (batch.returns - values).pow(2).mean()

        entropy = distribution.entropy().mean()
        loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy
        with torch.no_grad():
            # An estimator of the KL divergence of low variance (Schulman 2020).
            approx_kl = (ratio - 1 - log_ratio).mean()
            clip_fraction = ((ratio - 1).abs() > config.clip_coef).float().mean()
        return loss, {
            "loss": loss,
            "policy_gradient_loss": policy_loss,
            "value_loss": value_loss,
            "entropy_loss": -entropy,
            "approx_kl": approx_kl,
            "clip_fraction": clip_fraction,
        }

    def should_stop(self, metrics: Metrics) -> bool:
        """Return whether the KL divergence exceeds 1.5 times `target_kl`."""
        target = self.config.target_kl
        return target is not None and float(metrics["approx_kl"]) > 1.5 * target
