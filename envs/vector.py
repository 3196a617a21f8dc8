"""Many environments at once, in worker processes, over shared memory.

Axes: N environments, n environments of one group, E episode keys.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.errors import EnvError
from envs.registry import make
from envs.shared import Arrays, create_memory, map_arrays, numeric_keys
from envs.worker import ACT, CLOSE, FAILED, RESET, STEP, Job

# A worker that has not answered for this long has hung: an env step takes about a millisecond,
# the start of an engine about a second.
_ANSWER_WITHIN_S = 60.0
_CLOSE_WITHIN_S = 5.0
_START_WORKER = "from envs.worker import main; main()"


class Transition(NamedTuple):
    """What a group of environments returned; views that hold until the group is sent actions.

    Attributes:
        obs: current observations by part, each (n, ...); after an end, the next episode's first.
        rewards: (n,) float64, native.
        terminated: (n,) bool, the world ended.
        truncated: (n,) bool, time ran out.
        final_obs: last observations of ended episodes by part, each (n, ...); valid where ended.
        episode: (n, E) float64, statistics of ended episodes (`episode_keys`); valid where ended.
    """

    obs: dict[str, NDArray[Any]]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_obs: dict[str, NDArray[Any]]
    episode: NDArray[np.float64]


class _Worker:
    """One worker process and the socket to it.

    A worker is bound to a core, and with it its engines. Worker and engine take turns several times
    an env step; on one core they hand over at once, with what they share in its cache, instead of
    waking up another. This nearly doubles the speed of many games on few cores.
    """

    def __init__(self, job: Job, memory: int, core: int) -> None:
        self.connection, theirs = socket.socketpair()
        # Every import path of ours is theirs, and numerical libraries get one thread each.
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START_WORKER, str(theirs.fileno()), str(memory)],
                pass_fds=(theirs.fileno(), memory),
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the main process alone.
            )
        # Before its engines start, so that they inherit it.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, {core})
        self.connection.sendall(json.dumps(asdict(job)).encode() + b"\n")

    def send(self, command: int, group: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # receive() says what happened
            self.connection.sendall(bytes((command, group)))

    def answer(self) -> int:
        """Read which group's command it has obeyed, the oldest one it has not told of yet."""
        try:
            answer = self.connection.recv(2, socket.MSG_WAITALL)
        except ConnectionResetError:  # It died before it read what it was sent.
            answer = b""
        if len(answer) < 2:
            status = self.process.wait(_CLOSE_WITHIN_S)
            raise RuntimeError(f"a worker process died with exit status {status}")
        if answer[0] == FAILED:
            with self.connection.makefile("rb") as report:
                raise RuntimeError(f"a worker failed:\n{report.read().decode()}")
        return answer[1]

    def close(self) -> None:
        self.send(CLOSE, 0)
        self.connection.close()

    def end(self, deadline: float) -> None:
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _Team:
    """Workers that hold the same groups of environments, and what they have yet to answer.

    Teams know nothing of each other: each may be served by a thread of its own.
    """

    def __init__(self, holders: dict[int, list[_Worker]]) -> None:
        """Take, for each of the team's groups, the workers that hold environments of it."""
        self.groups = list(holders)
        self._holders = holders
        workers = {
            worker.connection.fileno(): worker for group in holders.values() for worker in group
        }
        self._workers, self._poll = workers, select.poll()
        for connection in workers:
            self._poll.register(connection, select.POLLIN)
        # For each group in flight, how many of its workers have not answered, in order of sending.
        self._unanswered: dict[int, int] = {}

    def expect_idle(self, group: int) -> None:
        if group in self._unanswered:
            raise EnvError(f"group {group} has not been received since it was last sent actions")

    def command(self, command: int, group: int) -> None:
        self.expect_idle(group)
        for worker in self._holders[group]:
            worker.send(command, group)
        self._unanswered[group] = len(self._holders[group])

    def wait(self) -> int:
        if not self._unanswered:
            raise EnvError("no group was sent actions; call send() first")
        while True:
            for group, missing in self._unanswered.items():
                if not missing:
                    return group
            self._take_answers()

    def finish(self, group: int) -> None:
        if group not in self._unanswered:
            raise EnvError(f"group {group} was not sent actions; call send() first")
        while self._unanswered[group]:
            self._take_answers()
        del self._unanswered[group]

    def finish_all(self) -> None:
        for group in list(self._unanswered):
            self.finish(group)

    def _take_answers(self) -> None:
        """Wait until workers answer, and take in what they say."""
        ready = self._poll.poll(_ANSWER_WITHIN_S * 1000)
        if not ready:
            raise RuntimeError(f"a worker has not answered for {_ANSWER_WITHIN_S:.0f} seconds")
        for connection, _ in ready:
            self._unanswered[self._workers[connection].answer()] -= 1


class SharedVectorEnv(VectorEnv[Any, Any, Any]):
    """N environments in W worker processes, by Gymnasium's contract for vector environments.

    Autoreset is SAME_STEP: `step` returns the first observation of the next episode, and the last
    one of the ended episode as `infos["final_obs"]`. Beside `reset` and `step` there is `send` and
    `receive` by groups, so that one group's games go on while a policy thinks about another.

    Environment i plays the episodes with seeds s + i, s + i + N, s + i + 2N, ... where s is the
    seed given to `reset`: the seeds of all episodes are known, and no two are the same.

    Workers are started by name, not forked or pickled: a script that uses this needs no
    `if __name__ == "__main__"`.

    Args:
        config: what every environment is like.
        num_envs: N.
        num_workers: W; default: one for each CPU core this process may use, at most N.
        num_groups: into how many groups, of equal size, the environments are split.

    Raises:
        EnvError: If the environment cannot be made, or the numbers do not fit.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        num_workers: int | None = None,
        num_groups: int = 1,
    ) -> None:
        if num_envs < 1:
            raise EnvError(f"num_envs must be at least 1, got {num_envs}")
        if num_workers is not None and num_workers < 1:
            raise EnvError(f"num_workers must be at least 1, got {num_workers}")
        if num_groups < 1 or num_envs % num_groups:
            raise EnvError(f"num_envs ({num_envs}) must be a multiple of num_groups ({num_groups})")
        self.config = config
        self.num_envs = num_envs
        self.num_workers = min(num_workers or len(_usable_cores()), num_envs)
        self.num_groups = num_groups
        example = make(config)
        self.spec = example.spec
        self.single_observation_space = example.observation_space
        self.single_action_space = example.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {**example.metadata, **SharedVectorEnv.metadata}
        self.info_keys, self.episode_keys = numeric_keys(example)
        self.groups = np.split(np.arange(num_envs), num_groups)
        self._slices = [slice(int(g[0]), int(g[-1]) + 1) for g in self.groups]
        memory = create_memory(example, num_envs)
        self._arrays: Arrays = map_arrays(memory, example, num_envs)
        example.close()
        cores = _usable_cores()
        # Programs that each use a few cores are not all to begin with the first one.
        first = os.getpid() if self.num_workers < len(cores) else 0
        deal = _deal(self.groups, self.num_workers)
        self._workers = [
            _Worker(Job(asdict(config), num_envs, hands), memory, cores[(first + w) % len(cores)])
            for w, hands in enumerate(deal)
        ]
        os.close(memory)
        self._transitions = [self._views(lanes) for lanes in self._slices]
        # For each group, the workers that hold environments of it; those of a team have the same.
        holders = [
            [worker for worker, hands in zip(self._workers, deal, strict=True) if hands[group]]
            for group in range(num_groups)
        ]
        self._teams: list[_Team] = []
        for group in range(num_groups):
            if all(group not in team.groups for team in self._teams):
                mates = [g for g in range(num_groups) if set(holders[g]) & set(holders[group])]
                self._teams.append(_Team({mate: holders[mate] for mate in mates}))
        self._team_of = {group: team for team in self._teams for group in team.groups}

    @property
    def teams(self) -> list[list[int]]:
        """The groups of each team of workers; a thread of its own may serve each team."""
        return [team.groups for team in self._teams]

    @property
    def episode_seeds(self) -> NDArray[np.int64]:
        """(N,) int64, the seeds of the running episodes."""
        seeds: NDArray[np.int64] = self._arrays.seeds.copy()
        return seeds

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment.

        Args:
            seed: s, or one for each environment; default: the next of the own generator.
            options: unused.

        Returns:
            Observations with first axis N, and infos by Gymnasium's contract.
        """
        if self.closed:
            raise EnvError("the environments are closed; make new ones")
        for team in self._teams:
            team.finish_all()
        if seed is None:
            if self._np_random is None:
                super().reset()
            seed = int(self.np_random.integers(2**31))
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
            seed = range(int(seed), int(seed) + self.num_envs)
        if len(seed) != self.num_envs:
            raise EnvError(f"{len(seed)} seeds were given for {self.num_envs} environments")
        self._arrays.seeds[:] = seed
        for group in range(self.num_groups):
            self._team_of[group].command(RESET, group)
        for group in range(self.num_groups):
            self._team_of[group].finish(group)
        return self._batch(self._arrays.obs), self._infos(self._arrays.info)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every environment once.

        Args:
            actions: first axis N.

        Returns:
            Observations, (N,) float64 rewards, (N,) bool terminated and truncated, and infos.
        """
        for group, lanes in enumerate(self._slices):
            self._place_actions(group, actions[lanes])
            self._team_of[group].command(STEP, group)
        for group in range(self.num_groups):
            self._team_of[group].finish(group)
        arrays = self._arrays
        infos = self._infos(arrays.info)
        ended = arrays.terminated | arrays.truncated
        if ended.any():
            final: NDArray[Any] = np.full(self.num_envs, None, dtype=object)
            plain = isinstance(self.single_observation_space, gym.spaces.Box)
            for lane in np.flatnonzero(ended):
                parts = {name: part[lane].copy() for name, part in arrays.final_obs.items()}
                final[lane] = parts["obs"] if plain else parts
            episode = dict(zip(self.episode_keys, arrays.episode.T.copy(), strict=True))
            final_info = self._infos(arrays.final_info, ended)
            final_info |= {"episode": _masked(episode, ended), "_episode": ended.copy()}
            infos |= {"final_obs": final, "final_info": final_info}
            infos |= {"_final_obs": ended.copy(), "_final_info": ended.copy()}
        return (
            self._batch(arrays.obs),
            arrays.rewards.copy(),
            arrays.terminated.copy(),
            arrays.truncated.copy(),
            infos,
        )

    def send(self, group: int, actions: NDArray[Any]) -> None:
        """Let the environments of a group take their actions, without waiting for them.

        Args:
            group: which group.
            actions: first axis n.

        Raises:
            EnvError: If their shape is not the group's, or the group has not been received.
        """
        self._place_actions(group, actions)
        self._team_of[group].command(ACT, group)

    def wait(self, team: int = 0) -> int:
        """Wait until some group of a team that was sent actions has taken them, and name it.

        Of several, the one that was sent them first.
        """
        return self._teams[team].wait()

    def receive(self, group: int) -> Transition:
        """Wait until a group that was sent actions has taken them.

        Raises:
            RuntimeError: If a worker failed, died or does not answer.
        """
        self._team_of[group].finish(group)
        return self._transitions[group]

    def current_obs(self, group: int) -> dict[str, NDArray[Any]]:
        """Views of a group's current observations by part, each (n, ...)."""
        return self._transitions[group].obs

    def close_extras(self, **kwargs: Any) -> None:
        """End every worker; those that do not end by themselves are killed."""
        workers = getattr(self, "_workers", [])
        for worker in workers:
            worker.close()
        deadline = time.monotonic() + _CLOSE_WITHIN_S
        for worker in workers:
            worker.end(deadline)

    def _views(self, lanes: slice) -> Transition:
        arrays = self._arrays
        return Transition(
            obs={name: part[lanes] for name, part in arrays.obs.items()},
            rewards=arrays.rewards[lanes],
            terminated=arrays.terminated[lanes],
            truncated=arrays.truncated[lanes],
            final_obs={name: part[lanes] for name, part in arrays.final_obs.items()},
            episode=arrays.episode[lanes],
        )

    def _place_actions(self, group: int, actions: NDArray[Any]) -> None:
        room = self._arrays.actions[self._slices[group]]
        if np.shape(actions) != room.shape:
            raise EnvError(f"actions have shape {np.shape(actions)}, not {room.shape}")
        self._team_of[group].expect_idle(group)
        room[:] = actions

    def _batch(self, parts: dict[str, NDArray[Any]]) -> Any:
        copies = deepcopy(parts)
        plain = isinstance(self.single_observation_space, gym.spaces.Box)
        return copies["obs"] if plain else copies

    def _infos(
        self, info: NDArray[np.float64], mask: NDArray[np.bool_] | None = None
    ) -> dict[str, Any]:
        everywhere = np.ones(self.num_envs, bool) if mask is None else mask
        return _masked(dict(zip(self.info_keys, info.T.copy(), strict=True)), everywhere)


def _deal(groups: list[NDArray[Any]], num_workers: int) -> list[list[list[int]]]:
    """Deal the environments of all groups to the workers, as evenly as cards.

    Where the numbers allow it, workers form teams with two groups or more each, so that a worker
    that begins a new episode keeps only its own team's groups waiting.

    Returns:
        For each worker and each group, the worker's environments.
    """
    fitting = [t for t in range(1, num_workers + 1) if num_workers % t == len(groups) % t == 0]
    num_teams = max((t for t in fitting if len(groups) >= 2 * t), default=1)
    hands: list[list[list[int]]] = [[[] for _ in groups] for _ in range(num_workers)]
    for g, group in enumerate(groups):
        team = hands[g % num_teams :: num_teams]
        # Each group goes on where the team's last one ended, or the first would get the left over.
        for card, env in enumerate(group.tolist(), start=g // num_teams * len(group)):
            team[card % len(team)][g].append(env)
    return hands


def _usable_cores() -> list[int]:
    """Give the numbers of the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _masked(values: dict[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Pair every key with the mask `_key` of where it is valid, as Gymnasium does."""
    return values | {f"_{key}": mask.copy() for key in values}
