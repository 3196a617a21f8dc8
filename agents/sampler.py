"""The sampler: plays a policy in many environments and keeps what happened as a rollout.

Axes: T rollout length, N environments, n environments of one group, K episodes of the rollout that
were truncated, S and M rows and width of the memory's state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from agents.device import single_thread
from agents.distributions import num_draws
from agents.inference import Inference, InferencePolicy
from agents.policy import Decision, Policy
from agents.rollout import Rollout
from agents.stopwatch import Stopwatch
from agents.traces import Trace, Traces
from agents.transfer import Staging, pinned, stream_of, upload, use_stream


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
        """(n, E) statistics, valid where an episode ended; NaN where it does not count."""


class PlayedEnvs(Protocol):
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


class GroupedEnvs(PlayedEnvs, Protocol):
    """Environments whose groups are served as they get ready, and that can be put back in place."""

    def restore(self, seeds: Sequence[int], actions: Sequence[NDArray[Any]]) -> None:
        """Begin an episode in every environment and take actions in it."""

    def skip(self, lanes: Sequence[int]) -> None:
        """Begin the next episode in some environments."""

    @property
    def teams(self) -> Sequence[Sequence[int]]:
        """The groups of each team; teams may be served by threads of their own."""

    def wait(self, team: int = 0) -> int:
        """Wait until some group of a team that was sent actions has taken them, and name it."""


def as_tensors(parts: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """View (on CPU) or copy (elsewhere) arrays as tensors."""
    return {name: torch.from_numpy(part).to(device) for name, part in parts.items()}


def is_lost(transition: Transition, i: int | np.integer[Any]) -> bool:
    """Tell whether what ended in environment i of a group is no episode that counts.

    The environment broke, or a life was lost in an episode that goes on.
    """
    return math.isnan(transition.episode[i, 0])


_STARTS = "episode_starts"  # beside the parts of an observation


class Collected(NamedTuple):
    """What a sampler brings home.

    Attributes:
        rollout: what happened.
        episodes: those that ended, in the order in which they were played.
        next_episode_seed: a seed that no episode so far has had, nor any after it.
        version: of the weights it was played with, as given to `collect`.
    """

    rollout: Rollout
    episodes: list[Trace]
    next_episode_seed: int
    version: int


@dataclass(frozen=True, kw_only=True)
class _Truncation:
    """An episode that was truncated in a rollout, to be valued at the rollout's end."""

    step: int
    lane: int
    obs: dict[str, NDArray[Any]]
    memory_state: Tensor


class Sampler:
    """Collects rollouts; between two of them every environment stands still.

    While one group's games go on, the policy thinks about another, whichever is ready first; teams
    of groups are served side by side, each by a thread. What comes out does not depend on who is
    faster: groups know nothing of each other, and what chance decides is drawn beforehand.

    In each env step of a group one copy goes up to the policy's device, observations with the
    starts of episodes, and one comes down, the actions. All else goes up once a rollout.

    Args:
        envs: the environments; they belong to the sampler from now on.
        policy: who plays; its weights are taken at the beginning of each rollout.
        rollout_length: T.
        seed: seed of the first episodes, and of the actions drawn.
        num_buffers: how many rollouts are kept; a new one takes the place of the oldest.
        inference: how the policy is run, see `InferencePolicy`.
    """

    def __init__(
        self,
        envs: GroupedEnvs,
        policy: Policy,
        *,
        rollout_length: int,
        seed: int,
        num_buffers: int = 1,
        inference: Inference = "auto",
    ) -> None:
        self.envs = envs
        self.policy = InferencePolicy(policy, inference)
        self.rollout_length = rollout_length
        size = envs.num_envs // envs.num_groups
        self._lanes = [slice(g * size, (g + 1) * size) for g in range(envs.num_groups)]
        envs.reset(seed=seed)
        shape, device = (rollout_length, envs.num_envs), policy.device
        self._generator = torch.Generator().manual_seed(seed)
        self._draws_shape = (*shape, num_draws(envs.single_action_space))
        # What the environments and the memory are in the midst of, between two rollouts.
        self._starts = np.ones(envs.num_envs, np.bool_)
        self._memory_state = policy.initial_state(envs.num_envs)
        self.num_buffers = num_buffers
        self._buffers = [
            allocate(envs, shape, self._memory_state, policy.actor.num_choices)
            for _ in range(num_buffers)
        ]
        self._storage = self._buffers[0]
        self._stagings = [Staging(self._shown(group), device) for group in range(envs.num_groups)]
        # Filled step by step on the CPU, and uploaded as wholes.
        self._told = {
            name: pinned(torch.zeros(shape, dtype=dtype))
            for name, dtype in (
                ("rewards", torch.float32),
                ("terminated", torch.bool),
                ("truncated", torch.bool),
            )
        }
        self._ended: list[tuple[int, int, int, list[float]]] = []
        self._truncations: list[_Truncation] = []
        self._seeds = envs.episode_seeds
        self._traces = Traces(self._storage)
        self._threads = ThreadPoolExecutor(len(envs.teams), thread_name_prefix="team")
        self.stopwatch = Stopwatch()
        lanes = self._lanes[0]
        seen = dict(self._stagings[0].send(self._shown(0)))
        draws = torch.zeros((size, self._draws_shape[-1]), device=device)
        starts = seen.pop(_STARTS)
        self.policy.prepare(seen, self._memory_state[:, lanes], starts, draws)

    def collect(self, version: int = 0) -> Collected:
        """Take the policy's weights and play T steps in every environment.

        The stopwatch counts `games` (waiting for them), `inference`, and `transfer` (all that is
        copied).

        Args:
            version: of the policy's weights; it is handed back with what they played.
        """
        self.policy.take_weights()
        return self.play(version)

    def play(self, version: int = 0) -> Collected:
        """Play T steps with the weights taken last; see `collect`."""
        with single_thread():
            return self._play(version)

    def _play(self, version: int) -> Collected:
        self._buffers.append(storage := self._buffers.pop(0))
        self._storage = storage
        storage.memory_state.copy_(self._memory_state)
        draws = upload(torch.rand(self._draws_shape, generator=self._generator), self.policy.device)
        stream = stream_of(self.policy.device)
        self.stopwatch.lap("transfer")
        others = range(1, len(self.envs.teams))
        playing = [self._threads.submit(self._play_team, team, draws, stream) for team in others]
        watches = [self._play_team(0, draws, stream), *(team.result() for team in playing)]
        self.stopwatch.lap_like(watches)
        for name, told in self._told.items():
            getattr(storage, name).copy_(told, non_blocking=True)
        rollout = self._valued(storage)
        self.stopwatch.lap("inference")
        keys = self.envs.episode_keys
        ended = (
            (t, lane, seed, dict(zip(keys, row, strict=True)))
            for t, lane, seed, row in sorted(self._ended)  # Whichever group was ready first.
        )
        episodes = self._traces.episodes(rollout, ended)
        self._ended.clear()
        self.stopwatch.lap("transfer")
        return Collected(
            rollout=rollout,
            episodes=episodes,
            next_episode_seed=int(self.envs.episode_seeds.max()) + self.envs.num_envs,
            version=version,
        )

    def state(self) -> dict[str, Tensor]:
        """Give all it takes to go on from here as if there had been no break.

        Episodes in flight are given as their seeds, their traces, and what is seen now.
        """
        return {
            "generator": self._generator.get_state(),
            "starts": torch.from_numpy(self._starts),
            "memory_state": self._memory_state,
            "episode_seeds": torch.from_numpy(self.envs.episode_seeds),
            **{f"obs/{name}": part for name, part in current_obs(self.envs).items()},
            **self._traces.state(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> int:
        """Go on from a state that `state` gave, playing episodes in flight again up to there.

        Returns:
            How many of them did not come out the same. Their environments begin new ones.
        """
        self._generator.set_state(state["generator"])
        self._starts[:] = state["starts"].numpy()
        self._memory_state.copy_(state["memory_state"])
        self._traces.load_state(state)
        lost = repeat_episodes(self.envs, state)
        self._starts[lost] = True
        for lane in lost:
            self._traces.forget(lane)
        self._seeds = self.envs.episode_seeds
        return len(lost)

    def close(self) -> None:
        """End the threads that serve teams."""
        self._threads.shutdown()

    def _play_team(self, team: int, draws: Tensor, stream: torch.cuda.Stream | None) -> Stopwatch:
        """Play T steps in the groups of a team."""
        watch, groups = Stopwatch(), self.envs.teams[team]
        with single_thread(), use_stream(stream):
            for group in groups:
                self._act(0, group, draws, watch)
            played = dict.fromkeys(groups, 0)  # steps of each group
            for _ in range(len(groups) * self.rollout_length):
                watch.lap("transfer")
                group = self.envs.wait(team)
                watch.lap("games")
                self._receive(played[group], group)
                played[group] += 1
                if played[group] < self.rollout_length:
                    self._act(played[group], group, draws, watch)
        return watch

    def _shown(self, group: int) -> dict[str, NDArray[Any]]:
        """Return all that a group's policy is shown."""
        return {**self.envs.current_obs(group), _STARTS: self._starts[self._lanes[group]]}

    def _act(self, t: int, group: int, draws: Tensor, watch: Stopwatch) -> None:
        """Decide step t of a group, and let it play on."""
        lanes, storage = self._lanes[group], self._storage
        seen = self._stagings[group].send(self._shown(group))
        for name, part in storage.obs.items():
            part[t, lanes] = seen[name]
        storage.episode_starts[t, lanes] = seen[_STARTS]
        watch.lap("transfer")
        obs = {name: part[t, lanes] for name, part in storage.obs.items()}
        starts, memory_state = storage.episode_starts[t, lanes], self._memory_state[:, lanes]
        decision = self.policy.act(obs, memory_state, starts, draws[t, lanes])
        actions = decision.actions.cpu().numpy()
        watch.lap("inference")
        self.envs.send(group, actions)
        self._store(t, lanes, decision)

    def _store(self, t: int, lanes: slice, decision: Decision) -> None:
        storage = self._storage
        storage.actions[t, lanes] = decision.actions
        storage.logprobs[t, lanes] = decision.logprobs
        storage.values[t, lanes] = decision.values
        storage.probabilities[t, lanes] = decision.probabilities
        self._memory_state[:, lanes] = decision.memory_state

    def _receive(self, t: int, group: int) -> None:
        """Take in what a group's step t led to."""
        lanes = self._lanes[group]
        transition = self.envs.receive(group)
        for name, told in self._told.items():
            told[t, lanes] = torch.from_numpy(getattr(transition, name))
        dones = transition.terminated | transition.truncated
        self._starts[lanes] = dones
        if dones.any():
            seeds = self.envs.episode_seeds
            for i in np.flatnonzero(dones).tolist():
                lane = lanes.start + i
                if not is_lost(transition, i):
                    row = transition.episode[i].tolist()
                    self._ended.append((t, lane, int(self._seeds[lane]), row))
                self._seeds[lane] = seeds[lane]
        for i in np.flatnonzero(transition.truncated).tolist():
            lane = lanes.start + i
            self._truncations.append(
                _Truncation(
                    step=t,
                    lane=lane,
                    obs={name: part[i].copy() for name, part in transition.final_obs.items()},
                    memory_state=self._memory_state[:, lane].clone(),
                )
            )

    def _valued(self, storage: Rollout) -> Rollout:
        """Return a rollout with the values of what it led to, and the observations they are of."""
        device, policy = self.policy.device, self.policy
        last_obs = {name: upload(part, device) for name, part in current_obs(self.envs).items()}
        last_starts = upload(torch.from_numpy(self._starts.copy()), device)
        storage.last_values.copy_(policy.value(last_obs, self._memory_state, last_starts))
        storage.final_values.zero_()
        # Whichever group was ready first.
        cut = sorted(self._truncations, key=lambda truncation: (truncation.step, truncation.lane))
        self._truncations.clear()
        places = [[truncation.step, truncation.lane] for truncation in cut]
        places_there = upload(torch.tensor(places, dtype=torch.int64).reshape(-1, 2), device)
        steps, lanes = places_there.unbind(1)
        final_obs = {name: part[:0] for name, part in last_obs.items()}
        if cut:
            for name in final_obs:
                stacked = np.stack([truncation.obs[name] for truncation in cut])
                final_obs[name] = upload(torch.from_numpy(stacked), device)
            state = torch.stack([truncation.memory_state for truncation in cut], dim=1)
            going_on = torch.zeros(len(cut), dtype=torch.bool, device=device)
            storage.final_values[steps, lanes] = policy.value(final_obs, state, going_on)
        return replace(
            storage,
            last_obs=last_obs,
            last_starts=last_starts,
            final_obs=final_obs,
            final_steps=steps,
            final_lanes=lanes,
        )


def current_obs(envs: PlayedEnvs) -> dict[str, Tensor]:
    """Give what all environments show now by part, each (N, ...), on the CPU."""
    groups = [envs.current_obs(group) for group in range(envs.num_groups)]
    return {name: torch.from_numpy(np.concatenate([g[name] for g in groups])) for name in groups[0]}


def repeat_episodes(envs: GroupedEnvs, state: Mapping[str, Tensor]) -> list[int]:
    """Play episodes in flight again up to where a sampler's state has them.

    Returns:
        The environments in which they did not come out the same, and which have begun new ones.
    """
    taken = [state[f"actions/{i}"].numpy() for i in range(envs.num_envs)]
    envs.restore(state["episode_seeds"].tolist(), taken)
    same = torch.ones(envs.num_envs, dtype=torch.bool)
    for name, part in current_obs(envs).items():
        same &= (part == state[f"obs/{name}"]).flatten(1).all(1)
    lost: list[int] = (~same).nonzero().flatten().tolist()
    if lost:
        envs.skip(lost)
    return lost


def allocate(
    envs: GroupedEnvs, shape: tuple[int, int], memory_state: Tensor, num_choices: int
) -> Rollout:
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
        probabilities=zeros(num_choices),
        rewards=zeros(),
        terminated=zeros(dtype=torch.bool),
        truncated=zeros(dtype=torch.bool),
        final_values=zeros(),
        episode_starts=zeros(dtype=torch.bool),
        memory_state=torch.zeros_like(memory_state),
        last_values=torch.zeros(shape[1], device=device),
    )
