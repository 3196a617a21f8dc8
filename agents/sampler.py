"""The sampler: it runs a policy in many environments and returns rollouts.

Axes: T rollout length, N environments, n environments of one group, K truncated episodes of the
rollout, S and M rows and width of the memory's state, D draws of an action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from agents.collector import (
    Collected,
    GroupedEnvs,
    as_numpy,
    check_state,
    current_obs,
    episodes_in_progress,
    is_lost,
    next_episode_seed,
    repeat_episodes,
)
from agents.device import single_thread
from agents.distributed import ALONE, Ranks
from agents.distributions import num_draws
from agents.errors import AgentError
from agents.inference import Inference, InferencePolicy
from agents.policy import Policy
from agents.rollout import Rollout
from agents.stopwatch import Stopwatch
from agents.traces import Traces
from agents.transfer import Array, Staging, pinned, stream_of, upload, use_stream

_STARTS = "episode_starts"  # Copied to the device together with the parts of an observation.


@dataclass(frozen=True, kw_only=True)
class _Truncation:
    """The truncation of an episode in a rollout.

    The value of its last observation is computed at the end of the rollout, together with others.

    Attributes:
        step: the env step in [0, T).
        lane: the environment in [0, N).
        obs: the last observation by part.
        memory_state: (S, M) float32, after the step.
    """

    step: int
    lane: int
    obs: dict[str, Tensor]
    memory_state: Tensor


class _Step(NamedTuple):
    """Where an env step of a group is stored, as views of the tensors of a rollout.

    Attributes:
        obs: by part, each (n, ...).
        episode_starts: (n,) bool.
        decision: actions, log-probabilities, values and probabilities, in the order of `Decision`.
        draws: (n, D) float32, uniform in [0, 1).
        reported: as named in `Sampler._reported`, each (n,).
    """

    obs: dict[str, Tensor]
    episode_starts: Tensor
    decision: tuple[Tensor, ...]
    draws: Tensor
    reported: tuple[Tensor, ...]


class Sampler:
    """Collects rollouts; between two rollouts, all environments wait. See `Collector`.

    The N environments form groups of equal size. While some groups step, the policy chooses actions
    for another one, in the order in which they finish. Groups with the same workers form a team,
    and each team is served by a separate thread. A lane is the index of an environment in [0, N).
    Rollouts do not depend on timing: groups do not influence each other, and all random numbers are
    drawn in advance.

    For each env step of a group, there is one copy to the policy's device (observations, and
    whether episodes started) and one copy back (actions). All else is copied once a rollout.

    Args:
        envs: the environments; nothing else may step them from now on.
        policy: the policy; its weights are copied at the start of each rollout.
        rollout_length: T.
        seed: seed of the first episodes, and of the sampled actions.
        num_buffers: the number of rollouts that stay valid; each new one overwrites the oldest.
        inference: how the policy is run, see `InferencePolicy`.
        targets: names of numeric infos to store in `Rollout.targets`.
        ranks: the processes that collect at the same time. Rank r has the environments r N to
            r N + N - 1 of all R N, with the episodes and the random numbers that these would have
            in one process.

    Attributes:
        envs: as above.
        policy: the copy of the policy that acts.
        rollout_length: as above.
        num_buffers: as above.
        stopwatch: see `Collector`.
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
        targets: Sequence[str] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        self.envs = envs
        self.policy = InferencePolicy(policy, inference)
        self.rollout_length = rollout_length
        size = envs.num_envs // envs.num_groups
        self._lanes = [slice(g * size, (g + 1) * size) for g in range(envs.num_groups)]
        first = ranks.rank * envs.num_envs
        envs.reset(seed=seed + first)
        shape, device = (rollout_length, envs.num_envs), policy.device
        self._generator = torch.Generator().manual_seed(seed)
        of_all = ranks.size * envs.num_envs
        self._draws_shape = (rollout_length, of_all, num_draws(envs.single_action_space))
        self._mine = slice(first, first + envs.num_envs)
        self._targets = [envs.info_keys.index(name) for name in targets]
        # Whether episodes start, and the memory's state, before the next env step.
        self._starts = np.ones(envs.num_envs, np.bool_)
        self._memory_state = policy.initial_state(envs.num_envs)
        self.num_buffers = num_buffers
        self._buffers = [
            allocate(envs, shape, self._memory_state, policy.actor.num_choices, targets)
            for _ in range(num_buffers)
        ]
        self._storage = self._buffers[0]
        self._stagings = [Staging(self._inputs(group), device) for group in range(envs.num_groups)]
        # Written in each env step on the CPU, and copied to the device once a rollout.
        self._reported = {
            name: pinned(torch.zeros(shape, dtype=dtype))
            for name, dtype in (
                ("rewards", torch.float32),
                ("terminated", torch.bool),
                ("truncated", torch.bool),
            )
        }
        self._reported_targets = pinned(torch.zeros(len(targets), *shape, dtype=torch.float32))
        self._ended: list[tuple[int, int, int, list[float]]] = []
        self._truncations: list[_Truncation] = []
        self._seeds = envs.episode_seeds
        self._traces = Traces(self._storage)
        # The state before the rollout that is being collected, without the traces, which change at
        # its end only.
        self._before: dict[str, Tensor] | None = None
        self._threads = ThreadPoolExecutor(len(envs.teams), thread_name_prefix="team")
        self.stopwatch = Stopwatch()
        lanes = self._lanes[0]
        inputs = dict(self._stagings[0].send(self._inputs(0)))
        draws = torch.zeros((size, self._draws_shape[-1]), device=device)
        starts = inputs.pop(_STARTS)
        self.policy.prepare(inputs, self._memory_state[:, lanes], starts, draws)

    def collect(self, version: int = 0) -> Collected:
        """See `Collector.collect`.

        The phases of the stopwatch are `environments` (waiting for them), `inference`, and
        `transfer` (all copies).
        """
        self.policy.take_weights()
        return self.run(version)

    def run(self, version: int = 0) -> Collected:
        """Collect a rollout with the weights that were copied last; see `collect`."""
        with single_thread():
            return self._run(version)

    def _run(self, version: int) -> Collected:
        self._before = self._state()
        self._buffers.append(storage := self._buffers.pop(0))
        self._storage = storage
        storage.memory_state.copy_(self._memory_state)
        draws = torch.rand(self._draws_shape, generator=self._generator)[:, self._mine]
        draws = upload(draws, self.policy.device)
        stream = stream_of(self.policy.device)
        self.stopwatch.lap("transfer")
        others = range(1, len(self.envs.teams))
        running = [self._threads.submit(self._run_team, team, draws, stream) for team in others]
        watches = [self._run_team(0, draws, stream), *(team.result() for team in running)]
        self.stopwatch.lap_like(watches)
        for name, reported in self._reported.items():
            getattr(storage, name).copy_(reported, non_blocking=True)
        # Targets come first, so that each is contiguous: only then a GPU is not waited for.
        for target, reported in zip(
            storage.targets.values(), self._reported_targets.unbind(), strict=True
        ):
            target.copy_(reported, non_blocking=True)
        rollout = self._valued(storage)
        self.stopwatch.lap("inference")
        keys = self.envs.episode_keys
        ended = (
            (t, lane, seed, dict(zip(keys, row, strict=True)))
            for t, lane, seed, row in sorted(self._ended)  # They were appended in any order.
        )
        episodes = self._traces.episodes(rollout, ended)
        self._ended.clear()
        self._before = None
        self.stopwatch.lap("transfer")
        return Collected(
            rollout=rollout,
            episodes=episodes,
            next_episode_seed=next_episode_seed(self.envs),
            version=version,
        )

    def state(self) -> dict[str, Tensor]:
        """See `Collector.state`.

        Episodes in progress are stored as seeds, traces and current observations. If a rollout was
        interrupted, it is the state before it.
        """
        return {**(self._before or self._state()), **self._traces.state()}

    def _state(self) -> dict[str, Tensor]:
        """Return copies of what changes while a rollout is collected."""
        return {
            "generator": self._generator.get_state(),
            "starts": torch.from_numpy(self._starts.copy()),
            "memory_state": self._memory_state.clone(),
            **episodes_in_progress(self.envs),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> int:
        """See `Collector.load_state`; the actions of episodes in progress are repeated."""
        check_state(state, self.state())
        try:
            self._generator.set_state(state["generator"])
        except RuntimeError as error:
            raise AgentError(
                "the checkpoint's random generator is damaged; start over with --fresh"
            ) from error
        self._before = dict(state)  # Until the environments are in this state.
        self._starts[:] = state["starts"].numpy()
        self._memory_state.copy_(state["memory_state"])
        self._traces.load_state(state)
        lost = repeat_episodes(self.envs, state)
        self._starts[lost] = True
        for lane in lost:
            self._traces.forget(lane)
        self._seeds = self.envs.episode_seeds
        self._before = None
        return len(lost)

    def close(self) -> None:
        """See `Collector.close`."""
        self._threads.shutdown()

    def _run_team(self, team: int, draws: Tensor, stream: torch.cuda.Stream | None) -> Stopwatch:
        """Run T env steps in the groups of a team, and return how the time was spent.

        Args:
            team: the team.
            draws: (T, N, D) float32, uniform in [0, 1).
            stream: see `use_stream`.
        """
        watch, groups = Stopwatch(), self.envs.teams[team]
        with single_thread(), use_stream(stream):
            steps = {group: self._steps(group, draws) for group in groups}
            for group in groups:
                self._act(0, group, steps[group][0], watch)
            done = dict.fromkeys(groups, 0)  # Env steps that each group has finished.
            for _ in range(len(groups) * self.rollout_length):
                watch.lap("transfer")
                group = self.envs.wait(team)
                watch.lap("environments")
                self._receive(done[group], group, steps[group][done[group]])
                done[group] += 1
                if done[group] < self.rollout_length:
                    self._act(done[group], group, steps[group][done[group]], watch)
        return watch

    def _steps(self, group: int, draws: Tensor) -> list[_Step]:
        """Return the T steps of a group in the rollout; views one by one take ten times as long."""
        lanes, storage = self._lanes[group], self._storage

        def views(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
            return list(zip(*(tensor[:, lanes].unbind() for tensor in tensors), strict=True))

        decided = storage.actions, storage.logprobs, storage.values, storage.probabilities
        rows = zip(
            views(*storage.obs.values()),
            views(storage.episode_starts, draws),
            views(*decided),
            views(*self._reported.values()),
            strict=True,
        )
        return [
            _Step(dict(zip(storage.obs, obs, strict=True)), starts, decision, drawn, reported)
            for obs, (starts, drawn), decision, reported in rows
        ]

    def _inputs(self, group: int) -> dict[str, Array]:
        """Return the policy's inputs for a group: parts of observations, and `episode_starts`."""
        return {**self.envs.current_obs(group), _STARTS: self._starts[self._lanes[group]]}

    def _act(self, t: int, group: int, step: _Step, watch: Stopwatch) -> None:
        """Choose the actions of env step t of a group, and send them."""
        lanes = self._lanes[group]
        inputs = self._stagings[group].send(self._inputs(group))
        for name, part in step.obs.items():
            part.copy_(inputs[name])
        step.episode_starts.copy_(inputs[_STARTS])
        if self._targets:
            # All at once, because there may be a hundred.
            info = self.envs.current_info(group)[:, self._targets]
            self._reported_targets[:, t, lanes] = torch.from_numpy(info.T)
        watch.lap("transfer")
        memory_state = self._memory_state[:, lanes]
        decision = self.policy.act(step.obs, memory_state, step.episode_starts, step.draws)
        actions = decision.actions.cpu().numpy()
        watch.lap("inference")
        self.envs.send(group, actions, with_info=bool(self._targets))
        *decided, state = decision
        for place, part in zip(step.decision, decided, strict=True):
            place.copy_(part)
        memory_state.copy_(state)

    def _receive(self, t: int, group: int, step: _Step) -> None:
        """Receive and store the result of env step t of a group."""
        lanes = self._lanes[group]
        result = self.envs.receive(group)
        for name, reported in zip(self._reported, step.reported, strict=True):
            reported.copy_(torch.as_tensor(getattr(result, name)))
        truncated = as_numpy(result.truncated)
        dones = as_numpy(result.terminated) | truncated
        self._starts[lanes] = dones
        if dones.any():
            seeds = self.envs.episode_seeds
            for i in np.flatnonzero(dones).tolist():
                lane = lanes.start + i
                if not is_lost(result, i):
                    row = result.episode[i].tolist()
                    self._ended.append((t, lane, int(self._seeds[lane]), row))
                self._seeds[lane] = seeds[lane]
        for i in np.flatnonzero(truncated).tolist():
            lane = lanes.start + i
            self._truncations.append(
                _Truncation(
                    step=t,
                    lane=lane,
                    obs={
                        n: torch.as_tensor(part[i]).clone() for n, part in result.final_obs.items()
                    },
                    memory_state=self._memory_state[:, lane].clone(),
                )
            )

    def _valued(self, storage: Rollout) -> Rollout:
        """Return a rollout with the values to bootstrap from, and with their observations."""
        device, policy = self.policy.device, self.policy
        last_obs = {name: upload(part, device) for name, part in current_obs(self.envs).items()}
        last_starts = upload(torch.from_numpy(self._starts.copy()), device)
        storage.last_values.copy_(policy.value(last_obs, self._memory_state, last_starts))
        storage.final_values.zero_()
        # They were appended in any order.
        cut = sorted(self._truncations, key=lambda truncation: (truncation.step, truncation.lane))
        self._truncations.clear()
        places = [[truncation.step, truncation.lane] for truncation in cut]
        places_there = upload(torch.tensor(places, dtype=torch.int64).reshape(-1, 2), device)
        steps, lanes = places_there.unbind(1)
        final_obs = {name: part[:0] for name, part in last_obs.items()}
        if cut:
            for name in final_obs:
                stacked = torch.stack([truncation.obs[name] for truncation in cut])
                final_obs[name] = upload(stacked, device)
            state = torch.stack([truncation.memory_state for truncation in cut], dim=1)
            starts = torch.zeros(len(cut), dtype=torch.bool, device=device)
            storage.final_values[steps, lanes] = policy.value(final_obs, state, starts)
        return replace(
            storage,
            last_obs=last_obs,
            last_starts=last_starts,
            final_obs=final_obs,
            final_steps=steps,
            final_lanes=lanes,
        )


def allocate(
    envs: GroupedEnvs,
    shape: tuple[int, int],
    memory_state: Tensor,
    num_choices: int,
    targets: Sequence[str] = (),
) -> Rollout:
    """Return a rollout of zeros, to be overwritten with each rollout.

    Args:
        envs: the environments.
        shape: (T, N).
        memory_state: (S, N, M) float32, an example on the rollout's device.
        num_choices: A of `Rollout.probabilities`.
        targets: names of numeric infos.
    """
    device = memory_state.device

    def zeros(*more: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(*shape, *more, dtype=dtype, device=device)

    parts = envs.current_obs(0)
    dtypes = {name: torch.as_tensor(part[:1]).dtype for name, part in parts.items()}
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
        targets={name: zeros() for name in targets},
    )
