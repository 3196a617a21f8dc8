"""Actions as a policy chooses them, and as an environment takes them.

A policy numbers its choices from 0, chooses switches in a row, and continuous numbers around 0.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.errors import EnvError


class Actions(gym.ActionWrapper[Any, Any, Any]):
    """Takes actions of one axis: choices from 0, switches, or numbers of any size.

    Choices are shifted to the space's `start`. Numbers are rescaled from -1 to 1 to the bounds of
    the space if it has any, clipped to them, and rounded if it is of integers. Arrays get the shape
    and the dtype of the space: whatever is given, the environment gets an element of its space.

    Args:
        env: an environment with an action space that `check_actions` accepts.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.action_space
        size = int(np.prod(space.shape or (1,)))
        if isinstance(space, spaces.Discrete):
            self.action_space = spaces.Discrete(int(space.n))
        elif isinstance(space, spaces.MultiDiscrete):
            self.action_space = spaces.MultiDiscrete(space.nvec.reshape(-1))
        elif isinstance(space, spaces.MultiBinary):
            self.action_space = spaces.MultiBinary(size)
        else:
            assert isinstance(space, spaces.Box)
            self.action_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
            self._low, self._high = _limits(space)
            # Halves, because a sum or a difference of the bounds could overflow.
            self._centre, self._half = (
                self._low / 2 + self._high / 2,
                self._high / 2 - self._low / 2,
            )
            self._rescales = space.is_bounded()
            self._rounds = np.issubdtype(space.dtype, np.integer)

    def action(self, action: Any) -> Any:
        """Return the environment's action for a policy's action."""
        space = self.env.action_space
        if isinstance(space, spaces.Discrete):
            return action + space.start
        array = np.asarray(action)
        if isinstance(space, spaces.MultiDiscrete):
            array = array.reshape(space.shape) + space.start
        elif isinstance(space, spaces.Box):
            array = self._numbers(array.astype(np.float64).reshape(space.shape))
            # The bounds again: the largest 64-bit integers are no float64 numbers.
            array = np.clip(np.asarray(array, space.dtype), space.low, space.high)
        return np.asarray(array, space.dtype).reshape(space.shape or ())

    def _numbers(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._rescales:
            action = self._centre + np.minimum(np.maximum(action, -1.0), 1.0) * self._half
        bounded: NDArray[np.float64] = np.minimum(np.maximum(action, self._low), self._high)
        return np.rint(bounded) if self._rounds else bounded


def with_plain_actions(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return an environment with actions of one axis, as policies choose them; see `Actions`."""
    space = env.action_space
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return env
    if isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)) and len(space.shape) == 1:
        starts = space.start if isinstance(space, spaces.MultiDiscrete) else np.zeros(1)
        return Actions(env) if starts.any() else env
    return Actions(env)


def _limits(space: spaces.Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and the highest float64 numbers that can be cast into a space."""
    dtype: np.dtype[Any] = space.dtype
    integral = np.issubdtype(dtype, np.integer)
    info: Any = np.iinfo(dtype) if integral else np.finfo(dtype)
    low = np.maximum(space.low.astype(np.float64), float(info.min))
    high = np.minimum(space.high.astype(np.float64), float(info.max))
    # The largest 64-bit integers are not float64 numbers; the next ones would overflow.
    return low, np.minimum(high, np.nextafter(2.0**63, 0)) if integral else high


def check_actions(space: spaces.Space[Any], name: str) -> None:
    """Check that actions can be chosen by a policy.

    Args:
        space: the action space.
        name: the environment's name, for the message.

    Raises:
        EnvError: If they cannot.
    """
    supported = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box)
    if not isinstance(space, supported) or 0 in (space.shape or ()):
        raise EnvError(
            f"{name} has the action space {space}, which is not supported; Discrete, "
            "MultiDiscrete, MultiBinary and Box are"
        )
