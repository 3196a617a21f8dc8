"""IMPALA's actor-critic: learning from rollouts of a slightly older policy (Espeholt et al. 2018).

Axes: T rollout length, N environments, K episodes of the rollout that were truncated.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from agents.a2c import policy_gradient_loss
from agents.agent import Agent, AgentConfig, following_values
from agents.gradients import Metrics
from agents.policy import Policy, PolicyOutput
from agents.returns import vtrace
from agents.rollout import Minibatch, Rollout
from agents.search_space import Choice, Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class VTraceConfig(AgentConfig):
    """Hyper-parameters of V-trace: each rollout is used once."""

    rollout_length: int = 32
    """Env steps in each environment between two updates, T."""
    gae_lambda: float = 1.0
    """Lambda of V-trace: 1 as in the paper; lower values shorten traces."""
    rho_clip: float = 1.0
    """Largest weight of a step of the older policy."""
    c_clip: float = 1.0
    """Largest weight of a trace."""
    normalize_advantages: bool = False
    """Normalise the advantages of each minibatch to mean 0 and standard deviation 1."""

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
    """Estimate advantages by V-trace with the values of the current policy.

    Args:
        agent: the agent; its policy is the current one.
        rollout: a rollout of an older policy.
        rewards: (T, N) float32, as scaled for learning.
        rho_clip: largest weight of a step.
        c_clip: largest weight of a trace.

    Returns:
        (T, N) float32 each: advantages, targets of the critic, and weights of the steps; see
        `agents.returns.vtrace`.

    Raises:
        ValueError: If the rollout lacks the observations to bootstrap from.
    """
    evaluated = reevaluate(agent, rollout)
    return vtrace(
        evaluated.logprobs - rollout.logprobs,
        rewards,
        evaluated.values,
        following_values(evaluated),
        rollout.dones,
        gamma=agent.config.gamma,
        gae_lambda=agent.config.gae_lambda,
        rho_clip=rho_clip,
        c_clip=c_clip,
    )


@torch.no_grad()
def reevaluate(agent: Agent[Any], rollout: Rollout) -> Rollout:
    """Return a rollout with the logprobs and values of the current policy.

    As in the paper, the memory starts with the rollout's state before the first step; from there on
    the state is that of the current policy.

    Args:
        agent: the agent; its policy is the current one.
        rollout: a rollout of an older policy.

    Returns:
        The rollout with other `logprobs`, `values`, `final_values` and `last_values`.

    Raises:
        ValueError: If the rollout lacks the observations to bootstrap from.
    """
    if rollout.final_steps is None or rollout.final_lanes is None:
        raise ValueError(
            "V-trace re-evaluates last observations, but this rollout has none: last_obs, "
            "last_starts, final_obs, final_steps and final_lanes must be given"
        )
    steps, num_envs = rollout.rewards.shape
    # Read together, because each reading waits for the GPU.
    numbers = (rollout.final_steps, rollout.final_lanes, rollout.truncated.sum()[None])
    *ends, num_truncated = torch.cat(numbers).tolist()
    count = len(rollout.final_steps)
    assert count == num_truncated, "each truncated episode has a last observation"
    # Environments are evaluated in groups of the size of a minibatch, to limit memory.
    at_once = max(1, (agent.config.minibatch_size or rollout.rewards.numel()) // steps)
    finals: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for k, (t, lane) in enumerate(zip(ends[:count], ends[count:], strict=True)):
        finals[lane // at_once].append((t, lane, k))
    evaluated = replace(
        rollout,
        logprobs=torch.zeros_like(rollout.logprobs),
        values=torch.zeros_like(rollout.values),
        final_values=torch.zeros_like(rollout.final_values),
        last_values=torch.zeros_like(rollout.last_values),
    )
    for part, first in enumerate(range(0, num_envs, at_once)):
        _reevaluate_lanes(agent.policy, evaluated, slice(first, first + at_once), finals[part])
    return evaluated


def _reevaluate_lanes(
    policy: Policy, evaluated: Rollout, lanes: slice, finals: list[tuple[int, int, int]]
) -> None:
    """Evaluate some environments of a rollout, and write the results to it.

    Args:
        policy: the current policy.
        evaluated: the rollout; its logprobs and values are overwritten.
        lanes: the environments.
        finals: step, environment and position in [0, K) of each of their truncated episodes.
    """
    assert evaluated.last_obs is not None
    assert evaluated.last_starts is not None
    assert evaluated.final_obs is not None
    last = len(evaluated.rewards) - 1
    # The memory's state at each truncation is needed, so that sequences are split there.
    stops = sorted({last, *(t for t, _, _ in finals)}) if policy.is_recurrent else [last]
    state, begin = evaluated.memory_state[:, lanes], 0
    for stop in stops:
        piece = (slice(begin, stop + 1), lanes)
        obs = {name: part[piece] for name, part in evaluated.obs.items()}
        output: PolicyOutput = policy(obs, state, evaluated.episode_starts[piece])
        evaluated.values[piece] = output.values
        evaluated.logprobs[piece] = output.distribution.log_prob(evaluated.actions[piece])
        state = output.memory_state
        if ended := [final for final in finals if begin <= final[0] <= stop]:
            t, lane, k = torch.tensor(ended, device=state.device).unbind(1)
            obs = {name: part[k] for name, part in evaluated.final_obs.items()}
            starts = torch.zeros_like(k, dtype=torch.bool)
            lane_state = state[:, lane - lanes.start]
            evaluated.final_values[t, lane] = policy.value(obs, lane_state, starts)
        begin = stop + 1
    obs = {name: part[lanes] for name, part in evaluated.last_obs.items()}
    evaluated.last_values[lanes] = policy.value(obs, state, evaluated.last_starts[lanes])


class VTrace(Agent[VTraceConfig]):
    """Learns once from each rollout, which a slightly older policy may have collected."""

    def estimate(self, rollout: Rollout, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """See `Agent.estimate` and `vtrace_estimate`."""
        config = self.config
        advantages, targets, rho = vtrace_estimate(
            self, rollout, rewards, rho_clip=config.rho_clip, c_clip=config.c_clip
        )
        return rho * advantages, targets

    def loss(self, output: PolicyOutput, batch: Minibatch) -> tuple[Tensor, Metrics]:
        """See `Agent.loss` and `policy_gradient_loss`; advantages are already weighted by rho."""
        return policy_gradient_loss(self.config, output, batch)
