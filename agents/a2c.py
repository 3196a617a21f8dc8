"""Advantage actor-critic, the synchronous form of A3C (Mnih et al. 2016).

Axes: t, n a minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from agents.agent import Agent, AgentConfig
from agents.gradients import Metrics
from agents.policy import PolicyOutput
from agents.rollout import Minibatch
from agents.search_space import Choice, Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class A2CConfig(AgentConfig):
    """Hyper-parameters of A2C: short rollouts, each used once."""

    rollout_length: int = 8
    """Env steps in each environment between two updates, T."""
    learning_rate: float = 7e-4
    """Step size of the optimiser."""
    gae_lambda: float = 1.0
    """Generalised advantage estimation: 1 is the n-step return of the paper."""
    normalize_advantages: bool = False
    """Normalise the advantages of each minibatch to mean 0 and standard deviation 1."""

    search_space: ClassVar[SearchSpace] = {
        **AgentConfig.search_space,
        "gae_lambda": Range(0.8, 1.0),
        "rollout_length": Choice((8, 16, 32, 64)),
        "normalize_advantages": Choice((False, True)),
    }


def policy_gradient_loss(
    config: AgentConfig, output: PolicyOutput, batch: Minibatch
) -> tuple[Tensor, Metrics]:
    """Compute -log pi(a) A, a value loss and an entropy bonus (Williams 1992; Mnih et al. 2016).

    Args:
        config: the coefficients.
        output: the policy's output for the minibatch.
        batch: the minibatch.

    Returns:
        The loss, a scalar, and metrics to log, scalars.
    """
    distribution, values = output.distribution, output.values
    policy_loss = -(distribution.log_prob(batch.actions) * batch.advantages).mean()
    value_loss = (batch.returns - values).pow(2).mean()
    entropy = distribution.entropy().mean()
    loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy
    return loss, {
        "loss": loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy_loss": -entropy,
    }


class A2C(Agent[A2CConfig]):
    """Learns from each short rollout once."""

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return RMSProp, as in the paper, with Stable-Baselines3's decay and epsilon."""
        return torch.optim.RMSprop(
            self.parameter_groups, self.config.learning_rate, alpha=0.99, eps=1e-5
        )

    def loss(self, output: PolicyOutput, batch: Minibatch) -> tuple[Tensor, Metrics]:
        """See `Agent.loss` and `policy_gradient_loss`."""
        return policy_gradient_loss(self.config, output, batch)
