"""IMPALA's actor-critic: learning from what a slightly older policy did (Espeholt et al. 2018).

Axes: T rollout length, N environments, K episodes of the rollout that were truncated.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from agents.a2c import policy_gradient_loss
from agents.agent import Agent, AgentConfig, Metrics, following_values
from agents.policy import Policy
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
    judged = judge(agent, rollout)
    return vtrace(
        judged.logprobs - rollout.logprobs,
        rewards,
        judged.values,
        following_values(judged),
        rollout.dones,
        gamma=agent.config.gamma,
        gae_lambda=agent.config.gae_lambda,
        rho_clip=rho_clip,
        c_clip=c_clip,
    )


@torch.no_grad()
def judge(agent: Agent[Any], rollout: Rollout) -> Rollout:
    """Return a rollout with the logprobs and all values that the present policy gives it.

    The memory's state is the rollout's before the first step, and the present policy's own from
    there on, as in the paper.

    Raises:
        ValueError: If the rollout lacks the observations to bootstrap from.
    """
    if rollout.final_steps is None or rollout.final_lanes is None:
        raise ValueError(
            "V-trace evaluates last observations anew, and this rollout lacks them: last_obs, "
            "final_obs and what belongs to them must be given"
        )
    steps, num_envs = rollout.rewards.shape
    # Read together: each reading waits for the GPU.
    numbers = (rollout.final_steps, rollout.final_lanes, rollout.truncated.sum()[None])
    *ends, num_truncated = torch.cat(numbers).tolist()
    count = len(rollout.final_steps)
    assert count == num_truncated, "final_obs are those of all truncated episodes"
    # No more at a time than is learned from at a time.
    at_once = max(1, (agent.config.minibatch_size or rollout.rewards.numel()) // steps)
    finals: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for k, (t, lane) in enumerate(zip(ends[:count], ends[count:], strict=True)):
        finals[lane // at_once].append((t, lane, k))
    judged = replace(
        rollout,
        logprobs=torch.zeros_like(rollout.logprobs),
        values=torch.zeros_like(rollout.values),
        final_values=torch.zeros_like(rollout.final_values),
        last_values=torch.zeros_like(rollout.last_values),
    )
    for part, first in enumerate(range(0, num_envs, at_once)):
        _judge_lanes(agent.policy, judged, slice(first, first + at_once), finals[part])
    return judged


def _judge_lanes(
    policy: Policy, judged: Rollout, lanes: slice, finals: list[tuple[int, int, int]]
) -> None:
    """Fill in the logprobs and values of some environments.

    Args:
        policy: who judges.
        judged: what is filled in.
        lanes: the environments.
        finals: step, environment and position in [0, K) of each of their truncated episodes.
    """
    assert judged.last_obs is not None
    assert judged.last_starts is not None
    assert judged.final_obs is not None
    last = len(judged.rewards) - 1
    # The memory is needed as it is where an episode was truncated: the sequence is cut there.
    stops = sorted({last, *(t for t, _, _ in finals)}) if policy.is_recurrent else [last]
    state, begin = judged.memory_state[:, lanes], 0
    for stop in stops:
        piece = (slice(begin, stop + 1), lanes)
        obs = {name: part[piece] for name, part in judged.obs.items()}
        distribution, judged.values[piece], state = policy(obs, state, judged.episode_starts[piece])
        judged.logprobs[piece] = distribution.log_prob(judged.actions[piece])
        if ended := [final for final in finals if begin <= final[0] <= stop]:
            t, lane, k = torch.tensor(ended, device=state.device).unbind(1)
            obs = {name: part[k] for name, part in judged.final_obs.items()}
            going_on = torch.zeros_like(k, dtype=torch.bool)
            judged.final_values[t, lane] = policy.value(obs, state[:, lane - lanes.start], going_on)
        begin = stop + 1
    obs = {name: part[lanes] for name, part in judged.last_obs.items()}
    judged.last_values[lanes] = policy.value(obs, state, judged.last_starts[lanes])


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
