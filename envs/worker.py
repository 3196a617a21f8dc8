"""A worker process: it holds some environments and steps them when told to.

Its arguments are two inherited file descriptors, of a socket and of the shared memory. The first
message on the socket is a JSON line that says which environments to make; then commands and replies
are two bytes each, a letter and the number of a group. Observations, actions and rewards travel in
the shared memory, where games of Doom write their frames themselves. When the socket closes,
because the main process closed it or died, the worker closes its environments and ends.

An environment that breaks, by an exception, an engine that dies or hangs, or numbers that are not
finite, is made anew and told of; its episode is handed over as cut off and begun again.

Where the loss of a life is an end for learning, it is told as `terminated` without statistics (NaN)
and with the same seed as before: the game, which alone is an episode, goes on.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.doom import DoomEnv
from envs.errors import ActionError, EnvError
from envs.pixels import lost_life
from envs.registry import make
from envs.shared import Arrays, map_arrays, numeric_keys

# STEP tells the numeric info of every step, which only some readers want; ACT leaves it out.
# RESTORE and ASK are followed by 8 bytes, the length of a JSON object: for RESTORE a list of
# actions for each lane, for ASK a question (see `Lanes.ask`), which RESULT answers in that form.
# Replies also are FAULT with the length of a text in place of the group and then the text, for each
# environment that broke, and FAILED with a text up to the end, after which the worker is gone.
RESET, STEP, ACT, RESTORE, ASK, RESULT, CLOSE, FAULT, FAILED = b"rsapqncxf"
HUNG = 3  # Exit status of a worker in which an environment hung.

_ATTEMPTS = 3  # to begin an episode
_LOSSES = 20  # of one episode, each begun again, after which it will never be played to its end
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Job:
    """What a worker is to do; it travels as JSON.

    Attributes:
        config: fields of the `EnvConfig` of every environment.
        num_envs: environments in all workers together, N.
        groups: for each group, this worker's environments among 0 to N-1.
        hang_after_s: seconds after which a step has hung.
        is_successor: of a worker that died in the midst of its episodes.
    """

    config: dict[str, Any]
    num_envs: int
    groups: list[list[int]]
    hang_after_s: float = 30.0
    is_successor: bool = False


class _HopelessError(EnvError):
    """A game breaks however often it is begun anew: the worker cannot go on."""


class _InPlace:
    """What a game of Doom does by itself, for any other environment: observe in given arrays."""

    lost_life = False  # in the last step, and the game went on

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env = env

    def write_to(self, room: dict[str, NDArray[Any]]) -> None:
        self._room = room

    def reset(self, *, seed: int) -> None:
        obs, self._info = self._env.reset(seed=seed)
        self.lost_life = False
        self._write(obs)

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        lives = self._info.get("lives", 0)
        obs, reward, terminated, truncated, self._info = self._env.step(action)
        self.lost_life = lost_life(lives, self._info)
        if not math.isfinite(reward):
            raise EnvError(f"its reward is {reward}")
        self._write(obs)
        return float(reward), terminated, truncated

    def info(self) -> dict[str, Any]:
        return self._info

    def episode_statistics(self) -> dict[str, float]:
        statistics: dict[str, float] = self._info["statistics"]
        return statistics

    def close(self) -> None:
        self._env.close()

    def get_wrapper_attr(self, name: str) -> Any:
        return self._env.get_wrapper_attr(name)

    def set_wrapper_attr(self, name: str, value: Any) -> bool:
        return self._env.set_wrapper_attr(name, value)

    def _write(self, obs: Any) -> None:
        for name, place in self._room.items():
            part = obs[name] if isinstance(obs, dict) else obs
            if not np.isfinite(part).all():
                raise EnvError("its observation is not finite")
            place[...] = part


class Lanes:
    """The environments of one worker, each bound to its lane of the shared arrays.

    Args:
        job: what to do.
        memory: file descriptor of the shared memory.
        tell: is called with the reason whenever an environment broke.
    """

    def __init__(self, job: Job, memory: int, tell: Callable[[str], None]) -> None:
        # JSON knows no tuples.
        options: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in job.config.items()
        }
        self._config = EnvConfig(**options)
        example = make(self._config)
        self._stride = job.num_envs
        self._arrays: Arrays = map_arrays(memory, example, job.num_envs)
        self._info_keys, self._episode_keys = numeric_keys(example)
        self._actions = example.action_space
        self._discrete = isinstance(self._actions, spaces.Discrete)
        example.close()
        lanes = [lane for group in job.groups for lane in group]
        self._envs = {lane: self._make(lane) for lane in lanes}
        self._tell = tell
        # What these were in the midst of is lost; nobody has been told yet.
        self._lost = set(lanes) if job.is_successor else set()
        self._losses = dict.fromkeys(lanes, 0)  # of the episode that each is in
        # Where the work is, for who watches from another thread.
        self.busy, self.count, self._lane = False, 0, lanes[0]

    def reset(self, lanes: list[int]) -> None:
        """Begin the episodes whose seeds stand in `seeds`."""
        for lane in lanes:
            self._begin(lane)
        self._tell_info(lanes)

    def restore(self, lanes: list[int], actions: dict[str, list[Any]]) -> None:
        """Begin the episodes whose seeds stand in `seeds`, and take actions in them.

        Args:
            lanes: the group's.
            actions: by lane, as JSON has it; lanes that are missing are left alone.
        """
        for lane in lanes:
            if str(lane) in actions:
                self._begin(lane)
                taken = np.asarray(actions[str(lane)], self._actions.dtype)
                if not self._repeat(lane, taken.tolist() if self._discrete else taken):
                    self._begin(lane)  # Who asked will see that it is not the same.

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
            self._work_at(lane)
            try:
                if lane in self._lost:
                    result = self._cut_off(lane)
                else:
                    result = self._envs[lane].advance(action)
                    if result[1] or result[2]:
                        self._begin_next(lane)
                    elif self._config.terminal_on_life_loss:
                        result = self._end_life(lane, result)
            except (ActionError, _HopelessError):
                raise
            except Exception as error:  # Whatever a game can raise.
                self._losses[lane] += 1
                if self._losses[lane] == _LOSSES:
                    seed = arrays.seeds[lane]
                    raise _HopelessError(
                        f"the episode with seed {seed} broke {_LOSSES} times: {_reason(error)}"
                    ) from error
                self._replace(lane, error)
                result = self._cut_off(lane)
            results.append(result)
        # Together: after each game, whatever is touched has to come from far away.
        arrays.rewards[lanes], arrays.terminated[lanes], arrays.truncated[lanes] = zip(
            *results, strict=True
        )

    def ask(self, lanes: list[int], question: dict[str, Any]) -> bytes:
        """Read an attribute of environments, set one, or call a method.

        Args:
            lanes: the group's.
            question: `lanes` that are asked, among others' too, the attribute's `name`, and either
                a `value` to set or the `args` and `kwargs` of a method, if it is one.

        Returns:
            What each environment says, by lane, as `as_json` gives it; or `error`, a text.
        """
        answers: dict[int, Any] = {}
        try:
            for lane in sorted(set(lanes) & set(question["lanes"])):
                self._work_at(lane)
                env, name = self._envs[lane], question["name"]
                if "value" in question:
                    answers[lane] = env.set_wrapper_attr(name, question["value"])
                    continue
                answer = env.get_wrapper_attr(name)
                if callable(answer):
                    answer = answer(*question["args"], **question["kwargs"])
                answers[lane] = answer
            return as_json(answers)
        except Exception as error:  # Whatever an environment can raise.
            return as_json({"error": _reason(error)})

    def end_hanging(self) -> None:
        """End what hangs, from another thread: an engine where there is one, else the worker."""
        env = self._envs[self._lane]
        if isinstance(env, DoomEnv):
            env.kill()
        else:
            os._exit(HUNG)

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs.values():
            env.close()

    def abandon(self) -> None:
        """Kill every engine and remove its files, without waiting for any; the worker then ends."""
        for env in self._envs.values():
            if isinstance(env, DoomEnv):
                env.abandon()

    def _work_at(self, lane: int) -> None:
        self._lane = lane
        self.count += 1

    def _make(self, lane: int) -> DoomEnv | _InPlace:
        made = make(self._config)
        env = made if isinstance(made, DoomEnv) else _InPlace(made)
        env.write_to({name: part[lane] for name, part in self._arrays.obs.items()})
        return env

    def _begin(self, lane: int) -> None:
        """Begin the episode whose seed stands in `seeds`, if need be in a new environment."""
        self._lost.discard(lane)
        for attempt in range(_ATTEMPTS):
            self._work_at(lane)
            try:
                self._envs[lane].reset(seed=int(self._arrays.seeds[lane]))
                return
            except Exception as error:  # Whatever a game can raise.
                if attempt == _ATTEMPTS - 1:
                    reason = _reason(error)
                    raise _HopelessError(f"an episode could not be begun: {reason}") from error
                self._replace(lane, error)

    def _repeat(self, lane: int, actions: Iterable[Any]) -> bool:
        """Take actions; tell whether the episode still goes on."""
        try:
            for action in actions:
                self._work_at(lane)
                _, terminated, truncated = self._envs[lane].advance(action)
                if terminated or truncated:
                    return False
        except Exception as error:  # Whatever a game can raise.
            self._replace(lane, error)
            return False
        return True

    def _begin_next(self, lane: int) -> None:
        """Keep what an episode ended with, and begin the lane's next one."""
        arrays, env = self._arrays, self._envs[lane]
        info, statistics = env.info(), env.episode_statistics()
        self._keep_last_obs(lane)
        arrays.final_info[lane] = [info[key] for key in self._info_keys]
        arrays.episode[lane] = [statistics[key] for key in self._episode_keys]
        arrays.seeds[lane] += self._stride
        self._losses[lane] = 0
        self._begin(lane)

    def _end_life(self, lane: int, result: tuple[float, bool, bool]) -> tuple[float, bool, bool]:
        """Return what a step led to; `terminated`, although the game goes on, if it cost a life."""
        env, arrays = self._envs[lane], self._arrays
        assert isinstance(env, _InPlace), "worlds of Doom refuse the option"
        if "lives" not in env.info():
            name = self._config.env
            raise _HopelessError(
                f"terminal_on_life_loss needs a game that tells `lives`; {name} does not"
            )
        if not env.lost_life:
            return result
        self._keep_last_obs(lane)
        arrays.final_info[lane] = [env.info()[key] for key in self._info_keys]
        arrays.episode[lane] = np.nan
        return result[0], True, False

    def _replace(self, lane: int, error: Exception) -> None:
        """Tell that an environment broke, and make a new one in its place."""
        self._tell(_reason(error))
        with contextlib.suppress(Exception):  # It is broken; whatever it says to this is no news.
            self._envs[lane].close()
        self._envs[lane] = self._make(lane)

    def _cut_off(self, lane: int) -> tuple[float, bool, bool]:
        """Hand over a lost episode as cut off where it was last seen, and begin it again."""
        arrays = self._arrays
        self._keep_last_obs(lane)
        arrays.final_info[lane] = arrays.episode[lane] = np.nan
        self._begin(lane)
        return 0.0, False, True

    def _keep_last_obs(self, lane: int) -> None:
        for name, part in self._arrays.final_obs.items():
            part[lane] = self._arrays.obs[name][lane]

    def _tell_info(self, lanes: list[int]) -> None:
        for lane in lanes:
            info = self._envs[lane].info()
            self._arrays.info[lane] = [info[key] for key in self._info_keys]


def _plain(value: Any) -> Any:
    """Make arrays and numbers of NumPy what JSON has."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise EnvError(f"{value!r} cannot leave its process: numbers, texts, lists and arrays can")


def _reason(error: Exception) -> str:
    """Say in one line what went wrong, and where unless it is said in our own words."""
    if isinstance(error, EnvError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({os.path.basename(where.filename)}:{where.lineno})"


def as_json(content: Mapping[Any, Any]) -> bytes:
    """Give JSON with its length before it, in 8 bytes; keys become texts, arrays lists."""
    payload = json.dumps(content, default=_plain).encode()
    return len(payload).to_bytes(8, "big") + payload


def receive_json(connection: socket.socket) -> dict[str, Any]:
    """Receive what `as_json` gave."""
    length = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
    content: dict[str, Any] = json.loads(connection.recv(length, socket.MSG_WAITALL))
    return content


class _Watchdog(threading.Thread):
    """Ends what hangs, and the worker if the main process is gone while a game keeps it."""

    def __init__(self, lanes: Lanes, hang_after_s: float) -> None:
        super().__init__(daemon=True)
        self._lanes, self._hang_after_s, self._parent = lanes, hang_after_s, os.getppid()

    def run(self) -> None:
        """Look every so often, as long as the worker lives."""
        count, since, was_ended = -1, 0.0, False
        while True:
            time.sleep(min(_LOOK_EVERY_S, self._hang_after_s / 4))
            if os.getppid() != self._parent:
                self._lanes.abandon()
                os._exit(0)
            if not self._lanes.busy or self._lanes.count != count:
                count, since, was_ended = self._lanes.count, time.monotonic(), False
            elif time.monotonic() - since > self._hang_after_s:
                if was_ended:  # To no avail.
                    os._exit(HUNG)
                self._lanes.end_hanging()
                since, was_ended = time.monotonic(), True


def serve(connection: socket.socket, memory: int) -> None:
    """Obey commands until told to close, or until the other end is gone."""

    def tell(reason: str) -> None:
        text = reason.encode()[:255]
        connection.sendall(bytes((FAULT, len(text))) + text)

    with connection.makefile("rb", buffering=0) as lines:
        job = Job(**json.loads(lines.readline()))
    lanes = Lanes(job, memory, tell)
    _Watchdog(lanes, job.hang_after_s).start()
    obey: dict[int, Callable[[list[int]], None]]
    obey = {RESET: lanes.reset, STEP: lanes.step, ACT: lanes.act}
    gc.freeze()  # What is there now stays; the collector need not look at it again.
    try:
        while len(message := connection.recv(2, socket.MSG_WAITALL)) == 2:
            command, group = message
            if command == CLOSE:
                lanes.close()
                break
            lanes.busy = True
            if command == RESTORE:
                lanes.restore(job.groups[group], receive_json(connection))
            elif command == ASK:
                answers = lanes.ask(job.groups[group], receive_json(connection))
                message = bytes((RESULT, group)) + answers + message
            else:
                obey[command](job.groups[group])
            lanes.busy = False
            connection.sendall(message)
    finally:
        lanes.abandon()


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
    except Exception as error:
        connection.sendall(bytes((FAILED, 0)) + _reason(error).encode())
    # Skip the interpreter's own clean-up: nothing is left to clean, and it takes a while.
    connection.close()
    os._exit(0)
