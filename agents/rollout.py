"""Rollouts: T steps of N environments, and how they are split into minibatches.

Axes: T rollout length, N environments, t and n steps and environments of a minibatch, A choices or
numbers of an action, S and M rows and width of the memory's state, K truncated episodes of the
rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """T steps of N environments, on the policy's device; valid until the next one is collected.

    `logprobs`, `probabilities` and all values are those of the policy that collected it. For those
    of another policy, `obs`, `last_obs` and `final_obs` must be evaluated. The fields from
    `last_obs` to `final_lanes` are either all given or all None.

    Attributes:
        obs: parts by name, each (T, N, ...): the observations before the actions.
        actions: (T, N) or (T, N, A), int64, or float32 if continuous.
        logprobs: (T, N) float32, of the actions, in nats.
        values: (T, N) float32, of `obs`.
        probabilities: (T, N, A) float32, of all choices; A is 0 if actions are continuous.
        rewards: (T, N) float32, as the environments pay them: native, unless wrappers change them.
        terminated: (T, N) bool, whether the environment ended the episode with this step.
        truncated: (T, N) bool, whether time ran out with this step.
        final_values: (T, N) float32, values of real last observations where truncated, else 0.
        episode_starts: (T, N) bool, whether `obs` is the first observation of an episode.
        memory_state: (S, N, M) float32, the memory's state before the first step.
        last_values: (N,) float32, values of the observations after the last step.
        last_obs: parts by name, each (N, ...): the observations after the last step.
        last_starts: (N,) bool, whether `last_obs` is the first observation of an episode.
        final_obs: parts by name, each (K, ...): the real last observations of truncated episodes.
        final_steps: (K,) int64, the step in [0, T) with which each of these was truncated.
        final_lanes: (K,) int64, the environment in [0, N) of each of these.
        targets: by name, each (T, N) float32: numeric infos of `obs` that objectives need.

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
    targets: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the observations to bootstrap from are complete."""
        optional = [f.name for f in fields(self) if f.default is None]
        missing = [name for name in optional if getattr(self, name) is None]
        if missing and len(missing) < len(optional):
            raise ValueError(f"{', '.join(optional)} must be given together; missing: {missing}")

    @property
    def dones(self) -> Tensor:
        """(T, N) bool, whether an episode ended with the step, in either way."""
        return self.terminated | self.truncated

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; those in dictionaries are named as in `last_obs/screen`.

        Fields that are None are left out.
        """
        return _tensors(self)

    def first_not_finite(self) -> str | None:
        """Return the name of the first tensor that holds NaN or infinity, or None."""
        numbers = {n: tensor for n, tensor in self.tensors().items() if tensor.is_floating_point()}
        # Read together, because each reading waits for the GPU.
        finite = torch.stack([tensor.isfinite().all() for tensor in numbers.values()]).tolist()
        return next((name for name, ok in zip(numbers, finite, strict=True) if not ok), None)


@dataclass(frozen=True, kw_only=True)
class Minibatch:
    """A part of a rollout: t steps of n environments.

    With memory, and for objectives that compare steps, these are whole sequences, t = T. Otherwise,
    they are single steps, t = 1, and `memory_state` is (0, 0, 0).

    Attributes:
        obs: parts by name, each (t, n, ...).
        actions: (t, n) or (t, n, A), int64, or float32 if continuous.
        logprobs: (t, n) float32, under the policy that collected the rollout, in nats.
        values: (t, n) float32, under that policy.
        advantages: (t, n) float32.
        returns: (t, n) float32, the targets of the critic.
        episode_starts: (t, n) bool.
        memory_state: (S, n, M) float32, before the first step.
        targets: by name, each (t, n) float32; see `Rollout`.
    """

    obs: dict[str, Tensor]
    actions: Tensor
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    episode_starts: Tensor
    memory_state: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; those in dictionaries are named as in `obs/screen`."""
        return _tensors(self)

    def clone(self) -> Minibatch:
        """Return a copy of all tensors."""
        return _map(self, Tensor.clone, self.memory_state.clone())

    def split(self, num_parts: int) -> list[Minibatch]:
        """Return at most `num_parts` parts with about the same number of environments."""
        num_envs = self.actions.shape[1]
        if min(num_parts, num_envs) == 1:
            return [self]
        device, recurrent = self.actions.device, self.memory_state.shape[1] == num_envs
        parts = torch.arange(num_envs, device=device).chunk(num_parts)
        return [_select(self, lanes, lanes if recurrent else lanes[:0]) for lanes in parts]


def _tensors(data: Rollout | Minibatch) -> dict[str, Tensor]:
    """Return all tensors of the fields and of dictionaries in them, by name."""
    tensors: dict[str, Tensor] = {}
    for f in fields(data):
        value = getattr(data, f.name)
        if isinstance(value, dict):
            tensors |= {f"{f.name}/{name}": part for name, part in value.items()}
        elif value is not None:
            tensors[f.name] = value
    return tensors


def minibatches(
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    *,
    minibatch_size: int,
    length: int = 1,
) -> Iterator[Minibatch]:
    """Yield the minibatches of a rollout, which together contain each step once, in random order.

    They consist of sequences of consecutive steps. With memory, these must be whole rollouts of
    some environments, because a sequence is processed from its start.

    Args:
        rollout: T steps of N environments.
        advantages: (T, N) float32.
        returns: (T, N) float32, the targets of the critic.
        minibatch_size: env steps in a minibatch, rounded down to whole sequences, but at least one.
        length: env steps in a sequence, L, a divisor of T.
    """
    steps, num_envs = rollout.rewards.shape
    whole = Minibatch(
        obs=rollout.obs,
        advantages=advantages,
        returns=returns,
        actions=rollout.actions,
        logprobs=rollout.logprobs,
        values=rollout.values,
        episode_starts=rollout.episode_starts,
        memory_state=rollout.memory_state,
        targets=rollout.targets,
    )
    whole = _in_sequences(whole, length)
    device, is_whole = rollout.rewards.device, length == steps
    order = torch.randperm(steps // length * num_envs).to(device)
    for chosen in order.split(max(1, minibatch_size // length)):
        yield _select(whole, chosen, chosen if is_whole else chosen[:0])


def _in_sequences(batch: Minibatch, length: int) -> Minibatch:
    """Return T steps of N environments as L steps of T / L * N sequences, (L, T / L * N, ...)."""

    def cut(part: Tensor) -> Tensor:
        sequences: Tensor = part.unflatten(0, (-1, length)).transpose(0, 1).flatten(1, 2)
        return sequences

    return _map(batch, cut, batch.memory_state)


def _select(batch: Minibatch, lanes: Tensor, state_lanes: Tensor) -> Minibatch:
    """Return some environments of a minibatch.

    Args:
        batch: the minibatch.
        lanes: (n,) int64, the environments.
        state_lanes: (n,) int64, the same for the memory's state; (0,) without memory.
    """
    state = batch.memory_state.index_select(1, state_lanes)
    return _map(batch, lambda part: part.index_select(1, lanes), state)


def _map(batch: Minibatch, change: Callable[[Tensor], Tensor], memory_state: Tensor) -> Minibatch:
    """Return a minibatch with each tensor changed by a function, and with another memory state."""
    changed: dict[str, Any] = {}
    for f in fields(batch):
        value = getattr(batch, f.name)
        if f.name == "memory_state":
            changed[f.name] = memory_state
        elif isinstance(value, dict):
            changed[f.name] = {name: change(part) for name, part in value.items()}
        else:
            changed[f.name] = change(value)
    return Minibatch(**changed)
