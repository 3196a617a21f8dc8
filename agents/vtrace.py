"""IMPALA's actor-critic: learning from what a slightly older policy did (Espeholt et al. 2018).

Axes: T rollout length, N environments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from agents.a2c import policy_gradient_loss
from agents.agent import Agent, AgentConfig, Metrics, following_values
from agents.returns import vtrace
from agents.rollout import Minibatch, Rollout
from agents.search import Choice, Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class VTraceConfig(AgentConfig):
    """Hyper-parameters of V-trace: each rollout is used once."""

    rollout_length: int = 32
    """Env steps in each environment between two updates, T."""
    gae_lambda: float = 1.0
    """Length of traces: 1 is the paper's."""
    rho_clip: float = 1.0
    """Largest weight of a step of the older policy."""
    c_clip: float = 1.0
    """Largest weight of a trace."""
    normalize_advantages: bool = False
    """Give the advantages of each minibatch mean 0 and deviation 1."""

    search_space: ClassVar[SearchSpace] = {
        **AgentConfig.search_space,
        "gae_lambda": Range(0.8, 1.0),
        "rollout_length": Choice((16, 32, 64, 128)),
        "normalize_advantages": Choice((False, True)),
    }

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not self.rho_clip >= self.c_clip > 0:
            raise ValueError(
                f"rho_clip ({self.rho_clip}) must be at least c_clip ({self.c_clip}), which must "
                "be greater than 0"
            )


def vtrace_estimate(
    agent: Agent[Any],
    rollout: Rollout,
    rewards: Tensor,
    *,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate advantages, targets and weights by the present policy, see `agents.returns.vtrace`.

    Args:
        agent: whose policy is the present one.
        rollout: what an older policy did.
        rewards: (T, N) float32, as scaled for learning.
        rho_clip: largest weight of a step.
        c_clip: largest weight of a trace.
    """
    logprobs, values = judge(agent, rollout)
    following = following_values(replace(rollout, values=values))
    return vtrace(
        logprobs - rollout.logprobs,
        rewards,
        values,
        following,
        rollout.dones,
        gamma=agent.config.gamma,
        gae_lambda=agent.config.gae_lambda,
        rho_clip=rho_clip,
        c_clip=c_clip,
    )


@torch.no_grad()
def judge(agent: Agent[Any], rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Give the present policy's logprobs of a rollout's actions, and its values, (T, N) each."""
    steps, num_envs = rollout.rewards.shape
    # No more at a time than is learned from at a time.
    at_once = max(1, (agent.config.minibatch_size or rollout.rewards.numel()) // steps)
    logprobs, values = [], []
    for lanes in torch.arange(num_envs, device=rollout.rewards.device).split(at_once):
        distribution, judged, _ = agent.policy(
            {name: part[:, lanes] for name, part in rollout.obs.items()},
            rollout.memory_state[:, lanes],
            rollout.episode_starts[:, lanes],
        )
        logprobs.append(distribution.log_prob(rollout.actions[:, lanes]))
        values.append(judged)
    return torch.cat(logprobs, 1), torch.cat(values, 1)


class VTrace(Agent[VTraceConfig]):
    """Learns once from each rollout, whichever policy of late made it."""

    def estimate(self, rollout: Rollout, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """See `Agent.estimate` and `vtrace_estimate`."""
        config = self.config
        advantages, targets, rho = vtrace_estimate(
            self, rollout, rewards, rho_clip=config.rho_clip, c_clip=config.c_clip
        )
        return rho * advantages, targets

    def loss(self, batch: Minibatch) -> tuple[Tensor, Metrics]:
        """See `policy_gradient_loss`; the advantages are weighted already."""
        return policy_gradient_loss(self, batch)
