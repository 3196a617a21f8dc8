"""The sampler: plays a policy in many environments and keeps what happened as a rollout.

Axes: T rollout length, N environments, n environments of one group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from agents.policy import Decision, Policy
from agents.rollout import Rollout
from agents.stopwatch import Stopwatch


class Transition(Protocol):
    """What a group of environments returned; arrays with first axis n, see `Rollout`."""

    @property
    def obs(self) -> Mapping[str, NDArray[Any]]:
        """Current observations by part; after an end, the next episode's first."""

    @property
    def rewards(self) -> NDArray[np.float64]:
        """(n,) native rewards."""

    @property
    def terminated(self) -> NDArray[np.bool_]:
        """(n,) the world ended."""

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """(n,) time ran out."""

    @property
    def final_obs(self) -> Mapping[str, NDArray[Any]]:
        """Last observations of ended episodes by part; valid where one ended."""

    @property
    def episode(self) -> NDArray[np.float64]:
        """(n, E) statistics of ended episodes, valid where one ended."""


class GroupedEnvs(Protocol):
    """Environments in groups of equal size that are sent actions and received from separately."""

    num_envs: int
    num_groups: int
    single_action_space: spaces.Space[Any]
    episode_keys: tuple[str, ...]

    @property
    def episode_seeds(self) -> NDArray[np.int64]:
        """(N,) seeds of the running episodes."""

    def reset(self, *, seed: int) -> Any:
        """Begin an episode in every environment."""

    def current_obs(self, group: int) -> Mapping[str, NDArray[Any]]:
        """Give a group's current observations by part."""

    def send(self, group: int, actions: NDArray[Any]) -> None:
        """Let a group act, without waiting for it."""

    def receive(self, group: int) -> Transition:
        """Wait for a group that was sent actions."""


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Let torch use one thread: while games are played, they need the other cores.

    Threads that wait for each other in every small operation, on cores that games occupy, cost more
    than they bring. The update, when games stand still, has them all again.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def as_tensors(parts: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """View (on CPU) or copy (elsewhere) arrays as tensors."""
    return {name: torch.from_numpy(part).to(device) for name, part in parts.items()}


class Sampler:
    """Collects rollouts; between two of them every environment stands still.

    While one group's games go on, the policy thinks about another.

    Args:
        envs: the environments; they belong to the sampler from now on.
        policy: who plays.
        rollout_length: T.
        seed: seed of the first episodes.
    """

    def __init__(
        self, envs: GroupedEnvs, policy: Policy, *, rollout_length: int, seed: int
    ) -> None:
        self.envs = envs
        self.policy = policy
        self.rollout_length = rollout_length
        size = envs.num_envs // envs.num_groups
        self._lanes = [slice(g * size, (g + 1) * size) for g in range(envs.num_groups)]
        envs.reset(seed=seed)
        shape, device = (rollout_length, envs.num_envs), policy.device
        # What the environments and the memory are in the midst of, between two rollouts.
        self._starts = torch.ones(envs.num_envs, dtype=torch.bool, device=device)
        self._memory_state = policy.initial_state(envs.num_envs).to(device)
        self._storage = _allocate(envs, shape, self._memory_state)
        self.finished_episodes: list[dict[str, float]] = []
        self.stopwatch = Stopwatch()

    def collect(self) -> Rollout:
        """Play T steps in every environment.

        Statistics of the episodes that ended are appended to `finished_episodes`; the stopwatch
        counts `games` (waiting for them), `inference`, and `transfer` (all that is copied).
        """
        with single_thread():
            return self._collect()

    def _collect(self) -> Rollout:
        storage = self._storage
        storage.memory_state.copy_(self._memory_state)
        for t in range(self.rollout_length):
            for group, lanes in enumerate(self._lanes):
                if t > 0:
                    self._receive(t - 1, group)
                self._load_obs(t, group)
                obs = {name: part[t, lanes] for name, part in storage.obs.items()}
                storage.episode_starts[t, lanes] = self._starts[lanes]
                self.stopwatch.lap("transfer")
                decision = self.policy.act(obs, self._memory_state[:, lanes], self._starts[lanes])
                actions = decision.actions.cpu().numpy()
                self.stopwatch.lap("inference")
                self.envs.send(group, actions)
                self._store(t, lanes, decision)
        for group in range(self.envs.num_groups):
            self._receive(self.rollout_length - 1, group)
        last_obs = self._current_obs()
        self.stopwatch.lap("transfer")
        storage.last_values.copy_(self.policy.value(last_obs, self._memory_state, self._starts))
        self.stopwatch.lap("inference")
        return storage

    def _store(self, t: int, lanes: slice, decision: Decision) -> None:
        storage = self._storage
        storage.actions[t, lanes] = decision.actions
        storage.logprobs[t, lanes] = decision.logprobs
        storage.values[t, lanes] = decision.values
        self._memory_state[:, lanes] = decision.memory_state

    def _receive(self, t: int, group: int) -> None:
        """Take in what step t led to."""
        lanes, storage = self._lanes[group], self._storage
        self.stopwatch.lap("transfer")
        transition = self.envs.receive(group)
        self.stopwatch.lap("games")
        dones = transition.terminated | transition.truncated
        storage.rewards[t, lanes] = torch.from_numpy(transition.rewards).float()
        storage.terminated[t, lanes] = torch.from_numpy(transition.terminated)
        storage.truncated[t, lanes] = torch.from_numpy(transition.truncated)
        storage.final_values[t, lanes] = 0.0
        self._starts[lanes] = torch.from_numpy(dones)
        if dones.any():
            for row in transition.episode[dones]:
                statistics = dict(zip(self.envs.episode_keys, row.tolist(), strict=True))
                self.finished_episodes.append(statistics)
        if transition.truncated.any():
            self._value_last_obs(t, lanes, transition)

    def _value_last_obs(self, t: int, lanes: slice, transition: Transition) -> None:
        """Value the real last observations of episodes that time cut off."""
        cut = np.flatnonzero(transition.truncated)
        obs = as_tensors({n: p[cut] for n, p in transition.final_obs.items()}, self.policy.device)
        where = torch.from_numpy(cut).to(self.policy.device) + lanes.start
        going_on = torch.zeros(len(cut), dtype=torch.bool, device=self.policy.device)
        values = self.policy.value(obs, self._memory_state[:, where], going_on)
        self._storage.final_values[t, where] = values

    def _load_obs(self, t: int, group: int) -> None:
        lanes = self._lanes[group]
        for name, part in self.envs.current_obs(group).items():
            self._storage.obs[name][t, lanes].copy_(torch.from_numpy(part), non_blocking=True)

    def _current_obs(self) -> dict[str, Tensor]:
        groups = [self.envs.current_obs(g) for g in range(self.envs.num_groups)]
        joined = {name: np.concatenate([g[name] for g in groups]) for name in groups[0]}
        return as_tensors(joined, self.policy.device)


def _allocate(envs: GroupedEnvs, shape: tuple[int, int], memory_state: Tensor) -> Rollout:
    """Make room for a rollout of (T, N); it is filled again and again."""
    device = memory_state.device

    def zeros(*more: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(*shape, *more, dtype=dtype, device=device)

    parts = envs.current_obs(0)
    dtypes = {name: torch.from_numpy(part[:1]).dtype for name, part in parts.items()}
    actions = envs.single_action_space
    continuous = isinstance(actions, spaces.Box)
    return Rollout(
        obs={name: zeros(*part.shape[1:], dtype=dtypes[name]) for name, part in parts.items()},
        actions=zeros(*(actions.shape or ()), dtype=torch.float32 if continuous else torch.int64),
        logprobs=zeros(),
        values=zeros(),
        rewards=zeros(),
        terminated=zeros(dtype=torch.bool),
        truncated=zeros(dtype=torch.bool),
        final_values=zeros(),
        episode_starts=zeros(dtype=torch.bool),
        memory_state=torch.zeros_like(memory_state),
        last_values=torch.zeros(shape[1], device=device),
    )
