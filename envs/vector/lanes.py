"""The environments of one worker process, and how they recover from faults.

An environment's index among all N is its *lane*, which is also its index in the shared arrays.

An environment fails by an exception, by an engine that dies or hangs, or by rewards or observations
that are NaN or infinite. It is then replaced by a new one. Its episode is reported as truncated and
restarted from the same seed.

If `terminal_on_life_loss` is set, the loss of a life is reported as `terminated`, without episode
statistics (NaN) and without a new seed: the game continues, and only a whole game is an episode.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.doom.env import DoomEnv
from envs.doom.players.single import MatchEnv
from envs.errors import ActionError, ContractError, EnvError, describe_error
from envs.pixels import lost_life
from envs.registry import make
from envs.vector.memory import Arrays, map_arrays, numeric_keys
from envs.vector.messages import HUNG, Job, as_json

_START_ATTEMPTS = 3  # to start an episode
_MAX_FAILURES = 20  # of one episode, which is restarted each time
_MAX_FIRST_FAILURES = 3  # of a worker's environments, before any env step has succeeded


class UnrecoverableError(EnvError):
    """An environment fails again and again: the worker cannot continue."""


class ArrayEnv:
    """Any environment but plain Doom, with the methods by which `DoomEnv` writes into given arrays.

    Args:
        env: the environment, which may be Doom in a user's wrappers.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env = env
        self.doom = env.unwrapped if isinstance(env.unwrapped, DoomEnv) else None
        self.match = env.unwrapped if isinstance(env.unwrapped, MatchEnv) else None

    def write_to(self, destination: dict[str, NDArray[Any]]) -> None:
        """From now on, write every observation into these arrays, one for each part."""
        self._destination = destination

    def reset(self, *, seed: int) -> None:
        """Start an episode."""
        obs, self._info = self._env.reset(seed=seed)
        self._previous_info = self._info
        self._write(obs)

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        """Take an action, and return the reward, terminated and truncated.

        Raises:
            EnvError: If the reward or the observation is NaN or infinite.
        """
        self._previous_info = self._info
        obs, reward, terminated, truncated, self._info = self._env.step(action)
        if not math.isfinite(reward):
            raise EnvError(f"its reward is {reward}")
        self._write(obs)
        return float(reward), terminated, truncated

    @property
    def lost_life(self) -> bool:
        """Whether the last step lost a life in a game that continues."""
        return lost_life(self._previous_info.get("lives", 0), self._info)

    def info(self) -> Mapping[str, Any]:
        """Return the info of the last step, and in Doom its own."""
        return self.doom.info() if self.doom else self._info

    def episode_statistics(self) -> dict[str, float]:
        """Return an ended episode's statistics by name."""
        statistics: dict[str, float] = self._info["statistics"]
        if not math.isfinite(statistics["r"]):
            raise EnvError(f"its reward is {statistics['r']}")
        return statistics

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def get_wrapper_attr(self, name: str) -> Any:
        """Return an attribute of the environment or one of its wrappers."""
        return self._env.get_wrapper_attr(name)

    def set_wrapper_attr(self, name: str, value: Any) -> bool:
        """Set an attribute of the environment or one of its wrappers."""
        return self._env.set_wrapper_attr(name, value)

    def _write(self, obs: Any) -> None:
        for name, array in self._destination.items():
            part = obs[name] if isinstance(obs, dict) else obs
            if part.dtype.kind == "f" and not np.isfinite(part).all():
                raise EnvError("its observation contains NaN or infinity")
            array[...] = part


def _doom_of(env: DoomEnv | ArrayEnv) -> DoomEnv | None:
    """Return the Doom that an environment is, or wraps."""
    return env if isinstance(env, DoomEnv) else env.doom


def _match_of(env: DoomEnv | ArrayEnv) -> MatchEnv | None:
    """Return the match that an environment is."""
    return env.match if isinstance(env, ArrayEnv) else None


def draws_targets(lane: int, every: int) -> bool:
    """Return whether a lane draws the buffers of targets, as one of each `every` lanes does.

    These are lanes 0, every + 1, 2 * every + 2, ...: lanes are dealt to workers in turns, and those
    that take more time should belong to different workers.
    """
    block, place = divmod(lane, every)
    return place == block % every


class Lanes:
    """The environments of one worker, each bound to its lane of the shared arrays.

    Args:
        job: what the worker is to do.
        memory: file descriptor of the shared memory.
        report_fault: called with the reason whenever an environment has failed.

    Attributes:
        busy: whether a command is being executed; set by the caller.
        count: increases whenever an environment is about to be called, so that another thread can
            detect an environment that hangs.
    """

    def __init__(self, job: Job, memory: int, report_fault: Callable[[str], None]) -> None:
        # JSON has no tuples.
        options: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in job.config.items()
        }
        self._config = EnvConfig(**options)
        example = make(self._config)
        self._seed_stride = job.seed_stride or job.num_envs
        self._arrays: Arrays = map_arrays(memory, example, job.num_envs)
        self._info_keys, self._episode_keys = numeric_keys(example)
        self._actions = example.action_space
        self._discrete = isinstance(self._actions, spaces.Discrete)
        example.close()
        lanes = job.lanes
        self._attributes = job.attributes
        self._envs = {lane: self._make(lane) for lane in lanes}
        self._report_fault = report_fault
        # Lanes whose episode was lost with the worker's predecessor, which is not reported yet.
        self._lost = set(lanes) if job.is_successor else set()
        self._failures = dict.fromkeys(lanes, 0)  # in the current episode of each lane
        self._has_stepped = job.is_successor  # Whether any env step has succeeded.
        self.busy, self.count, self._current = False, 0, lanes[0]

    def reset(self, lanes: list[int]) -> None:
        """Start episodes with the seeds in `seeds`."""
        for lane in lanes:
            self._start(lane)
        self._write_info(lanes)

    def restore(self, lanes: list[int], actions: dict[str, list[Any]]) -> None:
        """Start episodes with the seeds in `seeds`, and take actions in them.

        Args:
            lanes: lanes of the group.
            actions: by lane, which JSON makes a string; other lanes of the group are left alone.
        """
        restored = [lane for lane in lanes if str(lane) in actions]
        for lane in restored:
            self._start(lane)
            taken = np.asarray(actions[str(lane)], self._actions.dtype)
            if not self._repeat(lane, taken.tolist() if self._discrete else taken):
                self._start(lane)  # The caller compares observations, and sees the difference.
        self._write_info(restored)

    def step(self, lanes: list[int]) -> None:
        """Do what `act` does, and write the numeric infos."""
        self.act(lanes)
        self._write_info(lanes)

    def act(self, lanes: list[int]) -> None:
        """Take the actions in `actions`; if an episode ends, start the next one at once.

        The seeds of a lane's episodes are N apart, so that no two lanes ever have the same one.
        """
        arrays = self._arrays
        actions = arrays.actions[lanes]
        results = []
        for lane, action in zip(
            lanes, actions.tolist() if self._discrete else actions, strict=True
        ):
            self._work_at(lane)
            try:
                if lane in self._lost:
                    result = self._truncate(lane)
                else:
                    result = self._envs[lane].advance(action)
                    self._has_stepped = True
                    if result[1] or result[2]:
                        self._start_next(lane)
                    elif self._config.terminal_on_life_loss:
                        result = self._check_lives(lane, result)
            except (ActionError, ContractError, UnrecoverableError):
                raise
            except Exception as error:  # Environments can raise anything.
                self._failures[lane] += 1
                if not self._has_stepped and sum(self._failures.values()) == _MAX_FIRST_FAILURES:
                    raise UnrecoverableError(
                        f"{self._config.env} fails in its first env step: {describe_error(error)}"
                    ) from error
                if self._failures[lane] == _MAX_FAILURES:
                    seed = arrays.seeds[lane]
                    raise UnrecoverableError(
                        f"the episode with seed {seed} failed {_MAX_FAILURES} times: "
                        f"{describe_error(error)}"
                    ) from error
                self._replace(lane, error)
                result = self._truncate(lane)
            results.append(result)
        # All at once: after each environment's step these arrays are no longer in the cache.
        arrays.rewards[lanes], arrays.terminated[lanes], arrays.truncated[lanes] = zip(
            *results, strict=True
        )

    def ask(self, lanes: list[int], question: dict[str, Any]) -> bytes:
        """Read an attribute of environments, set one, or call a method.

        Args:
            lanes: lanes of the group.
            question: the `lanes` that are asked, possibly of other groups too; the attribute's
                `name`; and either a `value` to set, or `args` and `kwargs` in case it is a method.

        Returns:
            The answers by lane, as `as_json` returns them; or a text as `error`.
        """
        answers: dict[int, Any] = {}
        try:
            for lane in sorted(set(lanes) & set(question["lanes"])):
                self._work_at(lane)
                env, name = self._envs[lane], question["name"]
                if "value" in question:
                    answers[lane] = env.set_wrapper_attr(name, question["value"])
                    self._attributes.setdefault(str(lane), {})[name] = question["value"]
                    continue
                answer = env.get_wrapper_attr(name)
                if callable(answer):
                    answer = answer(*question["args"], **question["kwargs"])
                answers[lane] = answer
            return as_json(answers)
        except Exception as error:  # Environments can raise anything.
            return as_json({"error": describe_error(error)})

    def end_hanging(self) -> None:
        """Kill the current environment's engine, or exit if it has none; for another thread."""
        env = self._envs[self._current]
        if has_engine := _doom_of(env) or _match_of(env):
            has_engine.kill()
        else:
            os._exit(HUNG)

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs.values():
            env.close()

    def _work_at(self, lane: int) -> None:
        self._current = lane
        self.count += 1

    def _make(self, lane: int) -> DoomEnv | ArrayEnv:
        made = make(self._config)
        env = made if isinstance(made, DoomEnv) else ArrayEnv(made)
        env.write_to({name: part[lane] for name, part in self._arrays.obs.items()})
        if doom := _doom_of(env):
            doom.draws_targets = draws_targets(lane, self._config.targets_every)
        for name, value in self._attributes.get(str(lane), {}).items():
            env.set_wrapper_attr(name, value)
        return env

    def _start(self, lane: int) -> None:
        """Start the episode whose seed is in `seeds`, in a new environment if necessary."""
        self._lost.discard(lane)
        for attempt in range(_START_ATTEMPTS):
            self._work_at(lane)
            try:
                self._envs[lane].reset(seed=int(self._arrays.seeds[lane]))
                return
            except ContractError:
                raise
            except Exception as error:  # Environments can raise anything.
                if attempt == _START_ATTEMPTS - 1:
                    raise UnrecoverableError(
                        f"an episode could not be started: {describe_error(error)}"
                    ) from error
                self._replace(lane, error)

    def _repeat(self, lane: int, actions: Iterable[Any]) -> bool:
        """Take actions, and return whether the episode has not ended by then."""
        try:
            for action in actions:
                self._work_at(lane)
                _, terminated, truncated = self._envs[lane].advance(action)
                if terminated or truncated:
                    return False
        except Exception as error:  # Environments can raise anything.
            self._replace(lane, error)
            return False
        return True

    def _start_next(self, lane: int) -> None:
        """Write what belongs to the end of an episode, and start the lane's next one."""
        arrays, env = self._arrays, self._envs[lane]
        info, statistics = env.info(), env.episode_statistics()
        self._keep_last_obs(lane)
        arrays.final_info[lane] = [info[key] for key in self._info_keys]
        arrays.episode[lane] = [statistics[key] for key in self._episode_keys]
        arrays.seeds[lane] += self._seed_stride
        self._failures[lane] = 0
        self._start(lane)

    def _check_lives(self, lane: int, result: tuple[float, bool, bool]) -> tuple[float, bool, bool]:
        """Return the result of a step: `terminated` if it lost a life in a game that continues."""
        env, arrays = self._envs[lane], self._arrays
        assert isinstance(env, ArrayEnv), "Doom environments refuse the option"
        if "lives" not in env.info():
            name = self._config.env
            raise UnrecoverableError(
                "terminal_on_life_loss needs an environment that reports `lives` in its info; "
                f"{name} does not"
            )
        if not env.lost_life:
            return result
        self._keep_last_obs(lane)
        arrays.final_info[lane] = [env.info()[key] for key in self._info_keys]
        arrays.episode[lane] = np.nan
        return result[0], True, False

    def _replace(self, lane: int, error: Exception) -> None:
        """Report that an environment failed, and put a new one in its place."""
        self._report_fault(describe_error(error))
        with contextlib.suppress(Exception):  # It has failed already.
            self._envs[lane].close()
        self._envs[lane] = self._make(lane)

    def _truncate(self, lane: int) -> tuple[float, bool, bool]:
        """Return a lost episode's result, truncated at its last observation, and restart it."""
        arrays = self._arrays
        self._keep_last_obs(lane)
        arrays.final_info[lane] = arrays.episode[lane] = np.nan
        self._start(lane)
        return 0.0, False, True

    def _keep_last_obs(self, lane: int) -> None:
        for name, part in self._arrays.final_obs.items():
            part[lane] = self._arrays.obs[name][lane]

    def _write_info(self, lanes: list[int]) -> None:
        for lane in lanes:
            info = self._envs[lane].info()
            self._arrays.info[lane] = [info[key] for key in self._info_keys]
