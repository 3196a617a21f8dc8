"""A rollout: what N environments went through in T steps, and cutting it into minibatches.

Axes: T rollout length, N environments, A choices, S and M rows and width of the memory's state,
K episodes of the rollout that were truncated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """T steps of N environments, on the policy's device; valid until the next one is collected.

    The values in it are those of the policy that played. Whoever wants those of another policy
    finds the observations to evaluate in `obs`, `last_obs` and `final_obs`. The latter two, and
    what belongs to them, are given together, or are None where they were not kept.

    Attributes:
        obs: parts by name, each (T, N, ...): what the policy saw before acting.
        actions: (T, N) or (T, N, A).
        logprobs: (T, N) float32, of the actions under the policy that took them.
        values: (T, N) float32, of the observations under that policy.
        probabilities: (T, N, A) float32, of every choice; A is 0 where actions are continuous.
        rewards: (T, N) float32, native.
        terminated: (T, N) bool, the world ended with this step.
        truncated: (T, N) bool, time ran out with this step.
        final_values: (T, N) float32, value of the last observation where truncated, else 0.
        episode_starts: (T, N) bool, whether obs is an episode's first.
        memory_state: (S, N, M) float32, the memory's state before the first step.
        last_values: (N,) float32, values of the observations after the last step.
        last_obs: parts by name, each (N, ...): the observations after the last step.
        last_starts: (N,) bool, whether `last_obs` is an episode's first.
        final_obs: parts by name, each (K, ...): the real last observations of truncated episodes.
        final_steps: (K,) int64, the step in [0, T) with which each of them was truncated.
        final_lanes: (K,) int64, the environment in [0, N) of each of them.

    Raises:
        ValueError: If some of the optional tensors are given and others are not.
    """

    obs: dict[str, Tensor]
    actions: Tensor
    logprobs: Tensor
    values: Tensor
    probabilities: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    final_values: Tensor
    episode_starts: Tensor
    memory_state: Tensor
    last_values: Tensor
    last_obs: dict[str, Tensor] | None = None
    last_starts: Tensor | None = None
    final_obs: dict[str, Tensor] | None = None
    final_steps: Tensor | None = None
    final_lanes: Tensor | None = None

    def __post_init__(self) -> None:
        """Check that observations to bootstrap from are given with all that belongs to them."""
        optional = [f.name for f in fields(self) if f.default is None]
        missing = [name for name in optional if getattr(self, name) is None]
        if missing and len(missing) < len(optional):
            raise ValueError(f"{', '.join(optional)} are given together; missing: {missing}")

    @property
    def dones(self) -> Tensor:
        """(T, N) bool, whether an episode ended with the step, in either way."""
        return self.terminated | self.truncated

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; parts of observations are named as in `last_obs/screen`.

        What is None is left out.
        """
        tensors: dict[str, Tensor] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, dict):
                tensors |= {f"{f.name}/{name}": part for name, part in value.items()}
            elif value is not None:
                tensors[f.name] = value
        return tensors

    def first_not_finite(self) -> str | None:
        """Name the first of its tensors that holds NaN or infinity, if one does."""
        numbers = {n: tensor for n, tensor in self.tensors().items() if tensor.is_floating_point()}
        # Read together: each reading waits for the GPU.
        finite = torch.stack([tensor.isfinite().all() for tensor in numbers.values()]).tolist()
        return next((name for name, well in zip(numbers, finite, strict=True) if not well), None)


@dataclass(frozen=True, kw_only=True)
class Minibatch:
    """A part of a rollout, still as sequences: t steps of n environments.

    Without memory it is one step of many environments, (1, B).

    Attributes:
        obs: parts by name, each (t, n, ...).
        actions: (t, n) or (t, n, A).
        logprobs: (t, n) float32, under the policy that acted.
        values: (t, n) float32, under that policy.
        advantages: (t, n) float32.
        returns: (t, n) float32, what the critic is to predict.
        episode_starts: (t, n) bool.
        memory_state: (S, n, M) float32.
    """

    obs: dict[str, Tensor]
    actions: Tensor
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    episode_starts: Tensor
    memory_state: Tensor

    def cut(self, num_parts: int) -> list[Minibatch]:
        """Cut into at most so many parts of about the same number of environments."""
        num_envs = self.actions.shape[1]
        if min(num_parts, num_envs) == 1:
            return [self]
        device, recurrent = self.actions.device, self.memory_state.shape[1] == num_envs
        parts = torch.arange(num_envs, device=device).chunk(num_parts)
        return [_select(self, lanes, lanes if recurrent else lanes[:0]) for lanes in parts]


def minibatches(
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    *,
    minibatch_size: int,
    recurrent: bool,
) -> Iterator[Minibatch]:
    """Go once through a rollout in random order.

    With memory, whole environments go together, because a sequence must be run from its start;
    without, single steps are shuffled.

    Args:
        rollout: T steps of N environments.
        advantages: (T, N) float32.
        returns: (T, N) float32.
        minibatch_size: steps in a minibatch; with memory rounded down to whole environments.
        recurrent: whether the policy has memory.
    """
    steps, num_envs = rollout.rewards.shape
    whole = Minibatch(
        obs=rollout.obs,
        advantages=advantages,
        returns=returns,
        **{
            name: getattr(rollout, name)
            for name in ("actions", "logprobs", "values", "episode_starts", "memory_state")
        },
    )
    if recurrent:
        count = max(1, minibatch_size // steps)
        for lanes in torch.randperm(num_envs).to(rollout.rewards.device).split(count):
            yield _select(whole, lanes, lanes)
    else:
        whole = _flatten(whole)
        nobody = torch.zeros(0, dtype=torch.long, device=rollout.rewards.device)
        order = torch.randperm(steps * num_envs).to(rollout.rewards.device)
        for chosen in order.split(minibatch_size):
            yield _select(whole, chosen, nobody)


def _flatten(batch: Minibatch) -> Minibatch:
    """Turn T steps of N environments into one step of T * N."""
    parts = {f.name: getattr(batch, f.name) for f in fields(batch)}
    state = parts.pop("memory_state")
    obs = {name: part.flatten(0, 1)[None] for name, part in parts.pop("obs").items()}
    flat = {name: part.flatten(0, 1)[None] for name, part in parts.items()}
    return Minibatch(obs=obs, memory_state=state, **flat)


def _select(batch: Minibatch, lanes: Tensor, state_lanes: Tensor) -> Minibatch:
    parts = {f.name: getattr(batch, f.name) for f in fields(batch)}
    state = parts.pop("memory_state").index_select(1, state_lanes)
    obs = {name: part.index_select(1, lanes) for name, part in parts.pop("obs").items()}
    chosen = {name: part.index_select(1, lanes) for name, part in parts.items()}
    return Minibatch(obs=obs, memory_state=state, **chosen)
