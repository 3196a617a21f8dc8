"""Native rewards: what an environment pays, beneath the wrappers that change it for learning.

A user's wrappers may shape rewards. Statistics of episodes are native nevertheless, and so are the
rewards of evaluations and scores.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from envs.doom.env import DoomEnv
from envs.errors import ContractError, describe_error
from processes.streams import say_once


class Native(gym.Wrapper[Any, Any, Any, Any]):
    """Adds up the rewards of an environment, beneath all wrappers.

    Args:
        env: the environment.
        name: its name, for messages.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self._name = name
        self._untaken = 0.0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and return the reward as a number.

        Raises:
            ContractError: If it is not one.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        paid = as_number(reward, self._name)
        self._untaken += paid
        return observation, paid, terminated, truncated, info

    def take_reward(self) -> float:
        """Return the sum of the rewards since the last call, also across episodes."""
        taken, self._untaken = self._untaken, 0.0
        return taken


def as_number(reward: Any, name: str) -> float:
    """Return a reward as a number; an array of one element is one.

    Args:
        reward: what an environment returned.
        name: the environment's name, for the message.

    Raises:
        ContractError: If it is not a number.
    """
    if isinstance(reward, (int, float)):
        return float(reward)
    array = np.asarray(reward)
    if array.size != 1 or array.dtype.kind not in "biuf":
        what = " ".join(f"{reward!r:.60}".split())
        raise ContractError(f"{name} returns the reward {what}, which is not a number")
    return float(array.reshape(()))


class Reported(gym.Wrapper[Any, Any, Any, Any]):
    """The outermost wrapper: reports native statistics as `statistics` in an episode's last info.

    They are the return `r` and the length `l` in env steps, and in Doom those of `DoomEnv`. An
    episode is what the wrappers make of it: they may start one with the same game, as at the loss
    of a life, and step or reset the environment in between.

    The metadata name only channels, palettes and parts that this project knows of.

    Args:
        env: the wrapped environment.
        native: the environment beneath the user's wrappers, which adds up its rewards.
        name: its name, for messages.
        native_reward: whether `step` returns the native reward too.
        left_out: the parts of observations that are left out.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        native: Native | DoomEnv,
        name: str,
        *,
        native_reward: bool = False,
        left_out: tuple[str, ...] = (),
    ) -> None:
        super().__init__(env)
        self._native, self._name, self._returns_native = native, name, native_reward
        is_doom = isinstance(native, DoomEnv)
        own = {key: native.metadata[key] if is_doom else () for key in ("channels", "palette")}
        self.metadata = {**env.metadata, **own, "left_out": left_out}
        self._length, self._return = 0, 0.0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._length, self._return = 0, 0.0
        self._native.take_reward()  # What is earned from now on belongs to the new episode.
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and report an episode that has ended."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        reward = as_number(reward, self._name)
        self._length += 1
        paid = self._native.take_reward()
        self._return += paid
        if self._returns_native:
            reward = paid
        if terminated or truncated:
            info = {**info, "statistics": self._statistics()}
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Close the environment; an error is reported once."""
        try:
            super().close()
        except Exception as error:  # Environments can raise anything.
            say_once(f"{self._name} was not closed: {describe_error(error)}")

    def _statistics(self) -> dict[str, float]:
        doom = self._native.episode_statistics() if isinstance(self._native, DoomEnv) else {}
        return {**doom, "r": self._return, "l": self._length}
