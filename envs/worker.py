"""A worker process: it holds some environments and steps them when told to.

Its arguments are two inherited file descriptors, of a socket and of the shared memory. The first
message on the socket is a JSON line that says which environments to make; then commands and replies
are two bytes each, a letter and the number of a group. Observations, actions and rewards travel in
the shared memory, where games of Doom write their frames themselves. When the socket closes,
because the main process closed it or died, the worker closes its environments and ends.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import gymnasium as gym
from gymnasium import spaces
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.doom import DoomEnv
from envs.registry import make
from envs.shared import Arrays, map_arrays, numeric_keys

# STEP tells the numeric info of every step, which only some readers want; ACT leaves it out.
RESET, STEP, ACT, CLOSE, FAILED = b"rsacf"


@dataclass(frozen=True)
class Job:
    """What a worker is to do; it travels as JSON.

    Attributes:
        config: fields of the `EnvConfig` of every environment.
        num_envs: environments in all workers together, N.
        groups: for each group, this worker's environments among 0 to N-1.
    """

    config: dict[str, Any]
    num_envs: int
    groups: list[list[int]]


class _InPlace:
    """What a game of Doom does by itself, for any other environment: observe in given arrays."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env = env

    def write_to(self, room: dict[str, NDArray[Any]]) -> None:
        self._room = room

    def reset(self, *, seed: int) -> None:
        obs, self._info = self._env.reset(seed=seed)
        self._write(obs)

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        obs, reward, terminated, truncated, self._info = self._env.step(action)
        self._write(obs)
        return float(reward), terminated, truncated

    def info(self) -> dict[str, Any]:
        return self._info

    def episode_statistics(self) -> dict[str, float]:
        statistics: dict[str, float] = self._info["episode"]
        return statistics

    def close(self) -> None:
        self._env.close()

    def _write(self, obs: Any) -> None:
        for name, place in self._room.items():
            place[...] = obs[name] if isinstance(obs, dict) else obs


class Lanes:
    """The environments of one worker, each bound to its lane of the shared arrays."""

    def __init__(self, job: Job, memory: int) -> None:
        # JSON knows no tuples.
        options: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in job.config.items()
        }
        config = EnvConfig(**options)
        lanes = [lane for group in job.groups for lane in group]
        envs = {lane: make(config) for lane in lanes}
        any_env = envs[lanes[0]]
        self._stride = job.num_envs
        self._arrays: Arrays = map_arrays(memory, any_env, job.num_envs)
        self._info_keys, self._episode_keys = numeric_keys(any_env)
        self._discrete = isinstance(any_env.action_space, spaces.Discrete)
        self._envs: dict[int, DoomEnv | _InPlace] = {
            lane: env if isinstance(env, DoomEnv) else _InPlace(env) for lane, env in envs.items()
        }
        for lane, env in self._envs.items():
            env.write_to({name: part[lane] for name, part in self._arrays.obs.items()})

    def reset(self, lanes: list[int]) -> None:
        """Begin the episodes whose seeds stand in `seeds`."""
        for lane in lanes:
            self._envs[lane].reset(seed=int(self._arrays.seeds[lane]))
        self._tell_info(lanes)

    def step(self, lanes: list[int]) -> None:
        """Do what `act` does, and tell the numeric info."""
        self.act(lanes)
        self._tell_info(lanes)

    def act(self, lanes: list[int]) -> None:
        """Take the actions in `actions`; where an episode ends, begin the next one at once.

        The seeds of a lane's episodes are N apart, so that no two lanes ever play the same one.
        """
        arrays = self._arrays
        actions = arrays.actions[lanes]
        results = []
        for lane, action in zip(
            lanes, actions.tolist() if self._discrete else actions, strict=True
        ):
            result = self._envs[lane].advance(action)
            results.append(result)
            if result[1] or result[2]:
                self._begin_next(lane)
        # Together: after each game, whatever is touched has to come from far away.
        arrays.rewards[lanes], arrays.terminated[lanes], arrays.truncated[lanes] = zip(
            *results, strict=True
        )

    def _begin_next(self, lane: int) -> None:
        """Keep what an episode ended with, and begin the lane's next one."""
        arrays, env = self._arrays, self._envs[lane]
        for name, part in arrays.final_obs.items():
            part[lane] = arrays.obs[name][lane]
        info, statistics = env.info(), env.episode_statistics()
        arrays.final_info[lane] = [info[key] for key in self._info_keys]
        arrays.episode[lane] = [statistics[key] for key in self._episode_keys]
        arrays.seeds[lane] += self._stride
        env.reset(seed=int(arrays.seeds[lane]))

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs.values():
            env.close()

    def _tell_info(self, lanes: list[int]) -> None:
        for lane in lanes:
            info = self._envs[lane].info()
            self._arrays.info[lane] = [info[key] for key in self._info_keys]


def serve(connection: socket.socket, memory: int) -> None:
    """Obey commands until told to close, or until the other end is gone."""
    with connection.makefile("rb", buffering=0) as lines:
        job = Job(**json.loads(lines.readline()))
    lanes = Lanes(job, memory)
    obey: dict[int, Callable[[list[int]], None]]
    obey = {RESET: lanes.reset, STEP: lanes.step, ACT: lanes.act}
    gc.freeze()  # What is there now stays; the collector need not look at it again.
    try:
        while len(message := connection.recv(2, socket.MSG_WAITALL)) == 2:
            command, group = message
            if command == CLOSE:
                break
            obey[command](job.groups[group])
            connection.sendall(message)
    finally:
        lanes.close()


def main() -> None:
    """Run a worker; what goes wrong is reported to the main process, not printed."""
    # Ctrl-C and the end of the terminal are the main process's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    cv2.setNumThreads(1)
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        serve(connection, int(sys.argv[2]))
    except (BrokenPipeError, ConnectionResetError):
        pass  # The main process is gone; there is nobody to tell.
    except Exception:
        report = traceback.format_exc().encode()
        connection.sendall(bytes([FAILED, 0]) + report)
    # Skip the interpreter's own clean-up: nothing is left to clean, and it takes a while.
    connection.close()
    os._exit(0)
