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
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.engine import remove_leftovers
from envs.errors import EnvError
from envs.registry import doom_config, make
from envs.shared import Arrays, create_memory, map_arrays, numeric_keys
from envs.worker import (
    ACT,
    ASK,
    CLOSE,
    FAILED,
    FAULT,
    HUNG,
    RESET,
    RESTORE,
    RESULT,
    STEP,
    Job,
    as_json,
    receive_json,
)

# Workers watch their games themselves. One that does not answer although it had time to start every
# engine and to wait twice for one that hangs is beyond help.
_START_WITHIN_S, _START_ENGINE_WITHIN_S = 60.0, 3.0
_CLOSE_WITHIN_S = 5.0
_DEATHS = 3  # of a worker, without an answer between them, after which it is not replaced
_MINUTE_S = 60.0
_START_WORKER = "from envs.worker import main; main()"


class Transition(NamedTuple):
    """What a group of environments returned; views that hold until the group is sent actions.

    Attributes:
        obs: current observations by part, each (n, ...); after an end, the next episode's first.
        rewards: (n,) float64, native.
        terminated: (n,) bool, the world ended.
        truncated: (n,) bool, time ran out.
        final_obs: last observations of ended episodes by part, each (n, ...); valid where ended.
        episode: (n, E) float64, statistics of ended episodes (`episode_keys`); valid where ended,
            NaN where the episode was lost: its environment broke and begins the episode again.
    """

    obs: dict[str, NDArray[Any]]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_obs: dict[str, NDArray[Any]]
    episode: NDArray[np.float64]


class _WorkerDiedError(Exception):
    """A worker is gone; the message says how."""


class _Worker:
    """One worker process, and its successors where it dies, and the socket to it.

    A worker is bound to a core, and with it its engines. Worker and engine take turns several times
    an env step; on one core they hand over at once, with what they share in its cache, instead of
    waking up another. This nearly doubles the speed of many games on few cores.
    """

    def __init__(
        self, job: Job, memory: int, core: int, rewind: Callable[[list[int]], None]
    ) -> None:
        self._job, self._memory, self._core, self._rewind = job, memory, core, rewind
        self.unanswered: deque[bytes] = deque()  # What it was told and has not answered.
        self.fault = ""  # The last one it told of.
        self.answers: dict[str, Any] = {}  # To what it was asked last.
        self._deaths = 0  # since the last answer
        self._start(job)

    def _start(self, job: Job) -> None:
        self.connection, theirs = socket.socketpair()
        # Every import path of ours is theirs, and numerical libraries get one thread each.
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START_WORKER, str(theirs.fileno()), str(self._memory)],
                pass_fds=(theirs.fileno(), self._memory),
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the main process alone.
            )
        # Before its engines start, so that they inherit it.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, {self._core})
        self._transmit(json.dumps(asdict(job)).encode() + b"\n")

    def restart(self) -> None:
        """Put a new process in the place of one that is dead or hangs, to do what is unanswered."""
        self.kill()
        self.connection.close()
        self._start(replace(self._job, is_successor=True))
        for message in self.unanswered:
            if message[0] in (STEP, ACT):
                self._rewind(self._job.groups[message[1]])
            self._transmit(message)

    def send(self, message: bytes) -> None:
        self.unanswered.append(message)
        self._transmit(message)

    def answer(self) -> int | None:
        """Read which group's command it has obeyed, the oldest one it has not told of yet.

        Returns:
            The group; None if it told of a fault instead.

        Raises:
            _WorkerDiedError: If it is gone.
            EnvError: If it cannot go on, or dies again and again.
        """
        try:
            answer = self.connection.recv(2, socket.MSG_WAITALL)
        except ConnectionResetError:  # It died before it read what it was sent.
            answer = b""
        if len(answer) < 2:
            how = self._end()
            self._deaths += 1
            if self._deaths == _DEATHS:
                raise EnvError(f"a worker process died {_DEATHS} times in a row: {how}")
            raise _WorkerDiedError(f"a worker process died: {how}")
        command, group = answer
        if command == FAILED:
            with self.connection.makefile("rb") as report:
                raise EnvError(report.read().decode(errors="replace"))
        if command == FAULT:
            text = self.connection.recv(group, socket.MSG_WAITALL)
            self.fault = text.decode(errors="replace")
            return None
        if command == RESULT:
            self.answers |= receive_json(self.connection)
            return self.answer()
        self._deaths = 0
        self.unanswered.popleft()
        return int(group)

    def close(self) -> None:
        self._transmit(bytes((CLOSE, 0)))
        self.connection.close()

    def end(self, deadline: float) -> None:
        """Wait until its process has ended, and kill it if it does not."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        remove_leftovers()  # It had no time to do so itself.

    def _transmit(self, message: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # answer() says what happened
            self.connection.sendall(message)

    def _end(self) -> str:
        try:
            status = self.process.wait(_CLOSE_WITHIN_S)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        if status == HUNG:
            return f"a game did not come back for {self._job.hang_after_s:g} s"
        return f"signal {-status}" if status < 0 else f"exit status {status}"


class _Team:
    """Workers that hold the same groups of environments, and what they have yet to answer.

    Teams know nothing of each other: each may be served by a thread of its own.
    """

    def __init__(
        self,
        holders: dict[int, list[_Worker]],
        patience_s: float,
        count_restart: Callable[[str], None],
    ) -> None:
        """Take, for each of the team's groups, the workers that hold environments of it.

        Args:
            holders: the workers by group.
            patience_s: a worker that does not answer for so long is replaced.
            count_restart: is called with the reason whenever something was started anew.
        """
        self.groups = list(holders)
        self._holders = holders
        self._patience_s, self._count_restart = patience_s, count_restart
        self._workers: dict[int, _Worker] = {}  # By file descriptor.
        self._poll = select.poll()
        for worker in {id(w): w for group in holders.values() for w in group}.values():
            self._listen(worker)
        # For each group in flight, how many of its workers have not answered, in order of sending.
        self._unanswered: dict[int, int] = {}

    def expect_idle(self, group: int) -> None:
        if group in self._unanswered:
            raise EnvError(f"group {group} has not been received since it was last sent actions")

    def command(self, command: int, group: int, payload: bytes = b"") -> None:
        self.expect_idle(group)
        message = bytes((command, group)) + payload
        for worker in self._holders[group]:
            worker.send(message)
        self._unanswered[group] = len(self._holders[group])

    def take_results(self) -> dict[str, Any]:
        """Give what workers answered to what they were asked."""
        results: dict[str, Any] = {}
        for worker in self._workers.values():
            results |= worker.answers
            worker.answers = {}
        return results

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
        """Wait until workers answer, and take in what they say; replace those that never will."""
        ready = self._poll.poll(self._patience_s * 1000)
        if not ready:
            for worker in [w for w in self._workers.values() if w.unanswered]:
                self._replace(worker, f"a worker did not answer for {self._patience_s:g} s")
        for connection, _ in ready:
            worker = self._workers[connection]
            try:
                group = worker.answer()
            except _WorkerDiedError as death:
                self._replace(worker, str(death))
                continue
            if group is None:
                self._count_restart(worker.fault)
            else:
                self._unanswered[group] -= 1

    def _replace(self, worker: _Worker, reason: str) -> None:
        self._count_restart(reason)
        del self._workers[(old := worker.connection.fileno())]
        self._poll.unregister(old)
        worker.restart()
        self._listen(worker)

    def _listen(self, worker: _Worker) -> None:
        connection = worker.connection.fileno()
        self._workers[connection] = worker
        self._poll.register(connection, select.POLLIN)


class SharedVectorEnv(VectorEnv[Any, Any, Any]):
    """N environments in W worker processes, by Gymnasium's contract for vector environments.

    Autoreset is SAME_STEP: `step` returns the first observation of the next episode, and the last
    one of the ended episode as `infos["final_obs"]`. Beside `reset` and `step` there is `send` and
    `receive` by groups, so that one group's games go on while a policy thinks about another.

    Environment i plays the episodes with seeds s + i, s + i + N, s + i + 2N, ... where s is the
    seed given to `reset`: the seeds of all episodes are known, and no two are the same.

    Workers are started by name, not forked or pickled: a script that uses this needs no
    `if __name__ == "__main__"`.

    What breaks is started anew: engines that die or hang, environments that raise or whose numbers
    are not finite, workers that die. The episode is handed over as truncated at its last
    observation, with reward 0 and NaN for its statistics, and begun again from its seed. The other
    environments play on.

    Args:
        config: what every environment is like.
        num_envs: N.
        num_workers: W; default: one for each CPU core this process may use, at most N.
        num_groups: into how many groups, of equal size, the environments are split.
        hang_after_s: a step that takes longer than so many seconds has hung.
        max_restarts: more of them within a minute are not borne.

    Attributes:
        num_restarts: how often something was started anew.
        last_restart: why, the last time.

    Raises:
        EnvError: If the environment cannot be made, or the numbers do not fit; later, by any
            method that waits for environments, if they break again and again.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        num_workers: int | None = None,
        num_groups: int = 1,
        *,
        hang_after_s: float = 30.0,
        max_restarts: int = 100,
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
        self.num_restarts, self.last_restart = 0, ""
        self._max_restarts = max_restarts
        self._restart_times: deque[float] = deque(maxlen=max_restarts + 1)
        self._counting = threading.Lock()
        remove_leftovers()
        example = make(config)
        self.spec = example.spec
        self.single_observation_space = example.observation_space
        self.single_action_space = example.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {**example.metadata, **SharedVectorEnv.metadata}
        self.info_keys, self.episode_keys = numeric_keys(example)
        self.groups = np.split(np.arange(num_envs), num_groups)
        self._sent_seeds = np.zeros(num_envs, np.int64)
        self._slices = [slice(int(g[0]), int(g[-1]) + 1) for g in self.groups]
        self._memory = create_memory(example, num_envs)
        self._arrays: Arrays = map_arrays(self._memory, example, num_envs)
        example.close()
        cores = _usable_cores()
        # Programs that each use a few cores are not all to begin with the first one.
        first = os.getpid() if self.num_workers < len(cores) else 0
        deal = _deal(self.groups, self.num_workers)
        self._workers = [
            _Worker(
                Job(asdict(config), num_envs, hands, hang_after_s),
                self._memory,
                cores[(first + w) % len(cores)],
                self._rewind,
            )
            for w, hands in enumerate(deal)
        ]
        patience_s = _START_WITHIN_S + num_envs * _START_ENGINE_WITHIN_S + 2 * hang_after_s
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
                hands_of = {mate: holders[mate] for mate in mates}
                self._teams.append(_Team(hands_of, patience_s, self._count_restart))
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
        self._command_all(RESET)
        return self._batch(self._arrays.obs), self._infos(self._arrays.info)

    def restore(self, seeds: Sequence[int], actions: Sequence[NDArray[Any]]) -> None:
        """Begin an episode in every environment and take actions in it, without looking.

        Deterministic environments are then where they were when they had taken them before. An
        episode that ends meanwhile is not the same one; it is begun again and left there.

        Args:
            seeds: (N,), of the episodes.
            actions: for each environment, (T, ...), of an own length each.
        """
        self._arrays.seeds[:] = seeds
        self._restore({lane: np.asarray(taken).tolist() for lane, taken in enumerate(actions)})

    def skip(self, lanes: Sequence[int]) -> None:
        """Begin the next episode in some environments; the running one counts for nothing."""
        self._arrays.seeds[list(lanes)] += self.num_envs
        self._restore({lane: [] for lane in lanes})

    def _restore(self, actions: dict[int, list[Any]]) -> None:
        self._command_all(RESTORE, as_json(actions))

    def ask(self, lanes: Sequence[int], name: str, **question: Any) -> list[Any]:
        """Read an attribute of some environments, set one, or call a method; all travels as JSON.

        Args:
            lanes: which environments.
            name: of the attribute, wherever in the environment's wrappers it is.
            **question: `value` sets it; otherwise `args` and `kwargs` are a method's.

        Returns:
            What each says; arrays come as lists.

        Raises:
            EnvError: If an environment has no such attribute, raises, or says what JSON cannot
                hold.
        """
        given = question if "value" in question else {"args": [], "kwargs": {}, **question}
        self._command_all(ASK, as_json({"lanes": list(lanes), "name": name, **given}))
        answers: dict[str, Any] = {}
        for team in self._teams:
            answers |= team.take_results()
        if "error" in answers:
            raise EnvError(f"{name}: {answers['error']}")
        return [answers[str(lane)] for lane in lanes]

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment, or read an attribute; see `ask`."""
        return tuple(self.ask(range(self.num_envs), name, args=args, kwargs=kwargs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of every environment; see `ask`."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment, to one value or to a list of them; see `ask`."""
        if not isinstance(values, (list, tuple)):
            self.ask(range(self.num_envs), name, value=values)
            return
        for lane, value in enumerate(values):
            self.ask([lane], name, value=value)

    def _command_all(self, command: int, payload: bytes = b"") -> None:
        for group in range(self.num_groups):
            self._team_of[group].command(command, group, payload)
        for group in range(self.num_groups):
            self._team_of[group].finish(group)

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
            EnvError: If environments break again and again, or cannot be made anew.
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
        if hasattr(self, "_memory"):
            os.close(self._memory)
            del self._memory

    def _rewind(self, lanes: list[int]) -> None:
        """Undo the ends of episodes that a worker did not live to tell of."""
        self._arrays.seeds[lanes] = self._sent_seeds[lanes]

    def _count_restart(self, reason: str) -> None:
        """Count, from whichever thread, and give up when it is too often."""
        with self._counting:
            self.num_restarts += 1
            self.last_restart = reason
            times = self._restart_times
            times.append(time.monotonic())
            if len(times) > self._max_restarts and times[-1] - times[0] < _MINUTE_S:
                raise EnvError(
                    f"games had to be started anew {len(times)} times within a minute; "
                    f"the last time because {reason}"
                )

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
        lanes = self._slices[group]
        self._sent_seeds[lanes] = self._arrays.seeds[lanes]

    def _batch(self, parts: dict[str, NDArray[Any]]) -> Any:
        copies = deepcopy(parts)
        plain = isinstance(self.single_observation_space, gym.spaces.Box)
        return copies["obs"] if plain else copies

    def _infos(
        self, info: NDArray[np.float64], mask: NDArray[np.bool_] | None = None
    ) -> dict[str, Any]:
        everywhere = np.ones(self.num_envs, bool) if mask is None else mask
        return _masked(dict(zip(self.info_keys, info.T.copy(), strict=True)), everywhere)


def make_doom_vec(
    *,
    env: str,
    num_envs: int,
    num_workers: int | None = None,
    render_mode: str | None = None,
    **options: Any,
) -> SharedVectorEnv:
    """Make many worlds of Doom: what `gymnasium.make_vec("doomgrad/...")` calls by itself.

        >>> import gymnasium
        >>> envs = gymnasium.make_vec("envs:doomgrad/Basic-v0", num_envs=8, num_workers=2)
        >>> obs, infos = envs.reset(seed=0)  # (8, 72, 128, 1) uint8

    With `vectorization_mode="sync"` or `"async"` the same episodes are played, by Gymnasium's own
    rules: an episode after the first has a seed that its environment draws, and unless it is told
    `vector_kwargs={"autoreset_mode": "SameStep"}`, a step goes by between two episodes. Its vector
    wrappers of observations ask for such a step, and take only those; wrappers of rewards and
    actions, statistics and DictInfoToList take these environments too.

    Args:
        env: a scenario, a Freedoom map, or a path to a .cfg or .wad.
        num_envs: N.
        num_workers: worker processes.
        render_mode: None; there are no pictures beside what is observed.
        **options: fields of `EnvConfig`.

    Raises:
        EnvError: If an option is not one.
    """
    if render_mode is not None:
        raise EnvError(
            f'render_mode {render_mode!r} is not supported here; use vectorization_mode="sync"'
        )
    return SharedVectorEnv(doom_config(env, options), num_envs, num_workers)


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
