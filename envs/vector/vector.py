"""Many environments at once, in worker processes, over shared memory.

Axes: N environments, n environments of one group, E episode keys, I info keys. An environment's
index among the N is its *lane*. Lanes are split into *groups*: actions are sent to one group at a
time, as results are received from one. Workers with lanes of the same groups form a *team*.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.doom.engine import remove_leftovers
from envs.doom.env import DoomEnv
from envs.errors import EnvError
from envs.registry import doom_config, make
from envs.vector import pool
from envs.vector.infos import current_infos, final_infos
from envs.vector.memory import Arrays, create_memory, map_arrays, numeric_keys
from envs.vector.messages import ACT, ASK, RESET, RESTORE, STEP, as_json
from processes.streams import say_once

# Workers watch their own environments. A worker itself counts as hung if it does not reply within
# the time that it needs to start every engine and to wait for two that hang.
_START_WITHIN_S, _START_ENGINE_WITHIN_S = 60.0, 3.0
_STEP_WITHIN_S = 1.0  # An env step of many that are taken again; one alone may take longer.
_MINUTE_S = 60.0


class Transition(NamedTuple):
    """What a group of environments returned for an env step.

    The arrays are views, and hold until the group is sent actions again.

    Attributes:
        obs: current observations by part, each (n, ...); after the end of an episode, the first
            observation of the next one.
        rewards: (n,) float64, as the environments pay them.
        terminated: (n,) bool, the environment ended the episode.
        truncated: (n,) bool, time ran out.
        final_obs: last observations of ended episodes by part, each (n, ...); valid where an
            episode ended.
        episode: (n, E) float64, statistics of ended episodes (`episode_keys`); valid where an
            episode ended, NaN if it was lost because its environment failed and restarts it.
    """

    obs: dict[str, NDArray[Any]]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_obs: dict[str, NDArray[Any]]
    episode: NDArray[np.float64]


class SharedVectorEnv(VectorEnv[Any, Any, Any]):
    """N environments in W worker processes, with the interface of Gymnasium's vector environments.

    Autoreset is SAME_STEP: `step` returns the first observation of the next episode, and the last
    one of the ended episode as `infos["final_obs"]`. Besides `reset` and `step`, groups of
    environments can be stepped by `send` and `receive`, so that one group's environments run while
    a policy chooses the actions of another group.

    Environment i has episodes with the seeds s + i, s + i + N, s + i + 2N, ... where s is the seed
    given to `reset`: all seeds are known in advance, and no two episodes have the same one. With
    another `seed_stride` than N, several processes can share the seeds.

    Workers are started as new Python processes, not forked, and nothing is pickled: a script that
    uses this class needs no `if __name__ == "__main__"`.

    Whatever fails is replaced: engines that die or hang, environments that raise or return NaN or
    infinity, workers that die. The episode is returned as truncated at its last observation, with
    reward 0 and NaN for its statistics, and restarted from its seed. The other environments
    continue.

    Args:
        config: configuration of every environment.
        num_envs: N.
        num_workers: W; default: one for each CPU core this process may use, at most N.
        num_groups: number of groups of equal size into which the environments are split.
        hang_after_s: a step that takes more seconds than this counts as hung.
        max_restarts: more restarts than this within a minute raise EnvError.
        seed_stride: difference between the seeds of an environment's consecutive episodes; by
            default, N.
        first_core: index of the core to which the first worker is bound; by default, workers start
            with any if they are fewer than the cores.
        stops: returns whether to stop; methods that wait for environments then raise StoppedError,
            and the environments can only be closed.

    Attributes:
        num_restarts: how many environments, engines and workers were restarted.
        last_restart: the reason of the last restart.

    Raises:
        EnvError: If the environment cannot be made, or the numbers do not fit. Later, all methods
            that wait for environments raise it if environments fail too often.
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
        seed_stride: int | None = None,
        first_core: int | None = None,
        stops: Callable[[], bool] = lambda: False,
    ) -> None:
        if num_envs < 1:
            raise EnvError(f"num_envs must be at least 1, got {num_envs}")
        if num_workers is not None and num_workers < 1:
            raise EnvError(f"num_workers must be at least 1, got {num_workers}")
        if num_groups < 1 or num_envs % num_groups:
            raise EnvError(f"num_envs ({num_envs}) must be a multiple of num_groups ({num_groups})")
        self.config = config
        self.num_envs = num_envs
        self.num_workers = min(num_workers or len(pool.usable_cores()), num_envs)
        self.num_groups = num_groups
        self._seed_stride = seed_stride or num_envs
        self.num_restarts, self.last_restart = 0, ""
        self._max_restarts, self._stops = max_restarts, stops
        self._restart_times: deque[float] = deque(maxlen=max_restarts + 1)
        self._restart_lock = threading.Lock()
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
        _close(example, hang_after_s)
        self._transitions = [self._views(lanes) for lanes in self._slices]
        self._workers = pool.start_workers(
            config,
            self.groups,
            self.num_workers,
            memory=self._memory,
            hang_after_s=hang_after_s,
            seed_stride=self._seed_stride,
            first_core=first_core,
            restore_seeds=self._restore_seeds,
        )
        patience_s = _START_WITHIN_S + num_envs * _START_ENGINE_WITHIN_S + 2 * hang_after_s
        self._teams = pool.form_teams(self._workers, patience_s, self._count_restart, stops)
        self._team_of = {group: team for team in self._teams for group in team.groups}

    @property
    def teams(self) -> list[list[int]]:
        """The groups of each team; each team may be served by its own thread."""
        return [team.groups for team in self._teams]

    @property
    def episode_seeds(self) -> NDArray[np.int64]:
        """(N,) int64, the seeds of the current episodes."""
        seeds: NDArray[np.int64] = self._arrays.seeds.copy()
        return seeds

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every environment.

        Args:
            seed: s, or one seed for each environment; by default it is drawn from the vector
                environment's own generator.
            options: unused.

        Returns:
            Observations with first axis N, and infos as Gymnasium arranges them.
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
        return self._batch(self._arrays.obs), current_infos(self._arrays, self.info_keys)

    def restore(self, seeds: Sequence[int], actions: Sequence[NDArray[Any]]) -> None:
        """Start an episode in every environment and take actions in it.

        Deterministic environments are then in the same state as when they took the actions before.
        An episode that ends earlier is not the same one; it is restarted without actions.

        Args:
            seeds: (N,), of the episodes.
            actions: for each environment, (T, ...), where T may differ between environments.
        """
        self._arrays.seeds[:] = seeds
        self._restore({lane: np.asarray(taken).tolist() for lane, taken in enumerate(actions)})

    def skip(self, lanes: Sequence[int]) -> None:
        """Start the next episode in some environments; their current episodes are discarded."""
        self._arrays.seeds[list(lanes)] += self._seed_stride
        self._restore({lane: [] for lane in lanes})

    def _restore(self, actions: dict[int, list[Any]]) -> None:
        num_steps = sum(len(taken) for taken in actions.values())  # A worker may take them all.
        self._command_all(RESTORE, as_json(actions), more_patience_s=num_steps * _STEP_WITHIN_S)

    def ask(self, lanes: Sequence[int], name: str, **question: Any) -> list[Any]:
        """Read an attribute of some environments, set one, or call a method; all is sent as JSON.

        Args:
            lanes: which environments.
            name: name of the attribute, in the environment or any of its wrappers.
            **question: `value` to set it; otherwise `args` and `kwargs` of a method, if any.

        Returns:
            The answer of each environment; arrays are returned as lists.

        Raises:
            EnvError: If an environment has no such attribute, raises, or answers with something
                that cannot be sent as JSON.
        """
        given = question if "value" in question else {"args": [], "kwargs": {}, **question}
        self._command_all(ASK, as_json({"lanes": list(lanes), "name": name, **given}))
        answers: dict[str, Any] = {}
        for team in self._teams:
            answers |= team.take_answers()
        if "error" in answers:
            raise EnvError(f"{name}: {answers['error']}")
        if "value" in question:  # For workers that replace these.
            for worker in self._workers:
                for lane in set(worker.job.lanes) & set(lanes):
                    worker.job.attributes.setdefault(str(lane), {})[name] = question["value"]
        return [answers[str(lane)] for lane in lanes]

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment, or read an attribute; see `ask`."""
        return tuple(self.ask(range(self.num_envs), name, args=args, kwargs=kwargs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of every environment; see `ask`."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment, to one value or to a list of them; see `ask`.

        It is set again in environments that are restarted after a fault.
        """
        if not isinstance(values, (list, tuple)):
            self.ask(range(self.num_envs), name, value=values)
            return
        for lane, value in enumerate(values):
            self.ask([lane], name, value=value)

    def _command_all(
        self, command: int, payload: bytes = b"", more_patience_s: float = 0.0
    ) -> None:
        if self._stops():
            raise pool.StoppedError  # Groups may be in flight.
        for group in range(self.num_groups):
            self._team_of[group].command(command, group, payload, more_patience_s)
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
            self.send(group, actions[lanes], with_info=True)
        for group in range(self.num_groups):
            self._team_of[group].finish(group)
        arrays = self._arrays
        infos = current_infos(arrays, self.info_keys)
        infos |= final_infos(arrays, self.info_keys, self.episode_keys)
        return (
            self._batch(arrays.obs),
            arrays.rewards.copy(),
            arrays.terminated.copy(),
            arrays.truncated.copy(),
            infos,
        )

    def send(self, group: int, actions: NDArray[Any], *, with_info: bool = False) -> None:
        """Send a group its actions, without waiting for the result.

        Args:
            group: which group.
            actions: first axis n.
            with_info: whether to update the numeric infos (`current_info`) too, which takes time.

        Raises:
            EnvError: If the actions have the wrong shape, or the group has not been received since
                it was last sent actions.
        """
        lanes = self._slices[group]
        destination = self._arrays.actions[lanes]
        if np.shape(actions) != destination.shape:
            raise EnvError(f"actions have shape {np.shape(actions)}, not {destination.shape}")
        self._team_of[group].expect_idle(group)
        destination[:] = actions
        self._sent_seeds[lanes] = self._arrays.seeds[lanes]
        self._team_of[group].command(STEP if with_info else ACT, group)

    def wait(self, team: int = 0) -> int:
        """Wait until some group of a team has taken the actions it was sent, and return it.

        If several have, it is the one that was sent its actions first.
        """
        return self._teams[team].wait()

    def receive(self, group: int) -> Transition:
        """Wait until a group has taken the actions it was sent, and return the result.

        Raises:
            EnvError: If environments fail too often.
        """
        self._team_of[group].finish(group)
        return self._transitions[group]

    def current_obs(self, group: int) -> dict[str, NDArray[Any]]:
        """Return views of a group's current observations by part, each (n, ...)."""
        return self._transitions[group].obs

    def current_info(self, group: int) -> NDArray[np.float64]:
        """Return a view of the numeric infos of a group's current observations, (n, I) float64.

        Its columns are `info_keys`. They are those of the last `reset`, `restore` or `step`, or of
        the last `send` with `with_info`. Where an episode ended, they belong to the first
        observation of the next one.
        """
        return self._arrays.info[self._slices[group]]

    def close_extras(self, **kwargs: Any) -> None:
        """End every worker; those that do not exit in time are killed."""
        workers = getattr(self, "_workers", [])
        for worker in workers:
            worker.close()
        now = time.monotonic()
        for worker in workers:
            # Whoever has been told to stop does not wait for one that is in the middle of a step.
            hurries = self._stops() and worker.unanswered
            worker.end(now + (pool.HURRY_S if hurries else pool.CLOSE_WITHIN_S))
        if hasattr(self, "_memory"):
            os.close(self._memory)
            del self._memory

    def _restore_seeds(self, lanes: list[int]) -> None:
        """Set seeds to what they were when actions were sent: a worker that died changed some."""
        self._arrays.seeds[lanes] = self._sent_seeds[lanes]

    def _count_restart(self, reason: str) -> None:
        """Count a restart, in any thread, and raise if there were too many."""
        with self._restart_lock:
            self.num_restarts += 1
            self.last_restart = reason
            times = self._restart_times
            times.append(time.monotonic())
            if len(times) > self._max_restarts and times[-1] - times[0] < _MINUTE_S:
                raise EnvError(
                    f"environments were restarted {len(times)} times within a minute; at most "
                    f"{self._max_restarts} times (max_restarts) are allowed; the last time because "
                    f"{reason}"
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

    def _batch(self, parts: dict[str, NDArray[Any]]) -> Any:
        copies = deepcopy(parts)
        plain = isinstance(self.single_observation_space, gym.spaces.Box)
        return copies["obs"] if plain else copies


def make_doom_vec(
    *,
    env: str,
    num_envs: int,
    num_workers: int | None = None,
    render_mode: str | None = None,
    **options: Any,
) -> SharedVectorEnv:
    """Make many Doom environments: what `gymnasium.make_vec("doomgrad/...")` calls by default.

        >>> import gymnasium
        >>> envs = gymnasium.make_vec("envs:doomgrad/Basic-v0", num_envs=8, num_workers=2)
        >>> obs, infos = envs.reset(seed=0)  # (8, 72, 128, 1) uint8

    With `vectorization_mode="sync"` or `"async"` Gymnasium's own vector environments run the same
    first episodes. Later episodes have seeds that each environment draws, and there is one step
    between two episodes unless `vector_kwargs={"autoreset_mode": "SameStep"}` is given. Gymnasium's
    vector wrappers of observations require that extra step, so they accept only those vector
    environments. Its wrappers of rewards and actions, statistics and DictInfoToList accept
    `SharedVectorEnv` too.

    Args:
        env: a scenario, a Freedoom map, or a path to a .cfg or .wad.
        num_envs: N.
        num_workers: worker processes.
        render_mode: None, because worker processes do not render.
        **options: fields of `EnvConfig`.

    Raises:
        EnvError: If an option does not exist, or does not apply to Doom.
    """
    if render_mode is not None:
        raise EnvError(
            f'render_mode {render_mode!r} is not supported here; use vectorization_mode="sync"'
        )
    return SharedVectorEnv(doom_config(env, options), num_envs, num_workers)


def _close(env: gym.Env[Any, Any], patience_s: float) -> None:
    """Close an environment, and continue without waiting for one that hangs."""
    if isinstance(env.unwrapped, DoomEnv):
        env.close()
        return
    closing = threading.Thread(target=env.close, daemon=True)
    closing.start()
    closing.join(patience_s)
    if closing.is_alive():
        say_once(f"an environment was not closed within {patience_s:g} s; it is left alone")
