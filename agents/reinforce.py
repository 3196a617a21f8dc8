"""REINFORCE with a value baseline (Williams 1992), as in Karpathy's "Pong from pixels".

The advantage of an action is the discounted return that followed it, minus the value of the
observation. Axes: T rollout length, N environments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from agents.a2c import policy_gradient_loss
from agents.agent import Agent, AgentConfig
from agents.gradients import Metrics
from agents.policy import PolicyOutput
from agents.rollout import Minibatch
from agents.search_space import Choice, SearchSpace


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig(AgentConfig):
    """Hyper-parameters of REINFORCE: long rollouts, each used once."""

    rollout_length: int = 256
    """Env steps in each environment between two updates, T."""
    learning_rate: float = 1e-3
    """Step size of the optimiser."""
    gae_lambda: float = 1.0
    """Generalised advantage estimation: 1 is the discounted return less the value."""

    search_space: ClassVar[SearchSpace] = {
        **AgentConfig.search_space,
        "rollout_length": Choice((64, 128, 256, 512)),
        "normalize_advantages": Choice((False, True)),
    }


class Reinforce(Agent[ReinforceConfig]):
    """Learns from discounted returns, with values as a baseline and for what follows a rollout."""

    def loss(self, output: PolicyOutput, batch: Minibatch) -> tuple[Tensor, Metrics]:
        """See `Agent.loss` and `policy_gradient_loss`."""
        return policy_gradient_loss(self.config, output, batch)
