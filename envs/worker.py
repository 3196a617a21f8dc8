"""A worker process: it holds some environments and steps them when told to.

Its arguments are two inherited file descriptors, of a socket and of the shared memory. The first
message on the socket is a JSON line that says which environments to make; then commands and replies
are two bytes each, a letter and the number of a group. Observations, actions and rewards travel in
the shared memory. When the socket closes, because the main process closed it or died, the worker
closes its environments and ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import cv2
import gymnasium as gym
from gymnasium import spaces

from envs.config import EnvConfig
from envs.registry import make
from envs.shared import Arrays, map_arrays, numeric_keys

RESET, STEP, CLOSE, FAILED = b"rscf"


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
        self._stride = job.num_envs
        self._envs: dict[int, gym.Env[Any, Any]] = {lane: make(config) for lane in lanes}
        any_env = self._envs[lanes[0]]
        self._arrays: Arrays = map_arrays(memory, any_env, job.num_envs)
        self._info_keys, self._episode_keys = numeric_keys(any_env)
        self._discrete = isinstance(any_env.action_space, spaces.Discrete)

    def reset(self, lane: int) -> None:
        """Begin the episode whose seed stands in `seeds`."""
        arrays = self._arrays
        obs, info = self._envs[lane].reset(seed=int(arrays.seeds[lane]))
        self._write(arrays.obs, lane, obs)
        arrays.info[lane] = [info[key] for key in self._info_keys]

    def step(self, lane: int) -> None:
        """Take the action in `actions`; at an episode's end begin the next one at once.

        The seeds of a lane's episodes are N apart, so that no two lanes ever play the same one.
        """
        arrays = self._arrays
        action = arrays.actions[lane]
        obs, reward, terminated, truncated, info = self._envs[lane].step(
            int(action) if self._discrete else action.copy()
        )
        arrays.rewards[lane] = reward
        arrays.terminated[lane] = terminated
        arrays.truncated[lane] = truncated
        if terminated or truncated:
            self._write(arrays.final_obs, lane, obs)
            arrays.final_info[lane] = [info[key] for key in self._info_keys]
            arrays.episode[lane] = [info["episode"][key] for key in self._episode_keys]
            arrays.seeds[lane] += self._stride
            self.reset(lane)
        else:
            self._write(arrays.obs, lane, obs)
            arrays.info[lane] = [info[key] for key in self._info_keys]

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs.values():
            env.close()

    def _write(self, parts: dict[str, Any], lane: int, obs: Any) -> None:
        if isinstance(obs, dict):
            for name, value in obs.items():
                parts[name][lane] = value
        else:
            parts["obs"][lane] = obs


def serve(connection: socket.socket, memory: int) -> None:
    """Obey commands until told to close, or until the other end is gone."""
    with connection.makefile("rb", buffering=0) as lines:
        job = Job(**json.loads(lines.readline()))
    lanes = Lanes(job, memory)
    try:
        while len(message := connection.recv(2, socket.MSG_WAITALL)) == 2:
            command, group = message
            if command == CLOSE:
                break
            act = lanes.reset if command == RESET else lanes.step
            for lane in job.groups[group]:
                act(lane)
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
