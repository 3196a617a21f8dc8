"""Any Gymnasium environment, seen the way an agent here sees a world.

Pixels are resized, turned gray and stacked with OpenCV; small grids of categories (MiniGrid) and
nested observations become vectors; bounded continuous actions are asked for in -1 to 1 and clipped.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces, wrappers
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.errors import EnvError

# Images with a side smaller than this are grids of categories, not pixels.
_SMALLEST_IMAGE = 32


def adapt(env: gym.Env[Any, Any], config: EnvConfig) -> gym.Env[Any, Any]:
    """Wrap a Gymnasium environment so that its spaces are ones an agent here supports.

    Args:
        env: any environment.
        config: its frame skip, and how pixels are observed.

    Returns:
        An environment whose observation space is a (H, W, C) uint8 or a (D,) float32 Box, whose
        action space is Discrete, MultiDiscrete, MultiBinary or Box, and whose info at the end of
        an episode holds `episode` with its native return `r` and length `l` in env steps.

    Raises:
        EnvError: If a space is not supported.
    """
    _check_actions(env)
    if (config.frame_skip or 1) > 1:
        env = ActionRepeat(env, config.frame_skip or 1)
    space = env.observation_space
    if _is_image(space):
        env = Pixels(env, config)
    else:
        if not _is_flattenable(space):
            raise EnvError(
                f"{config.env} observes {space}, which is not supported; numbers, pixels and "
                "dictionaries of them are"
            )
        # A vector of float32, whatever was nested in it.
        env = wrappers.FlattenObservation(env)
        flat = env.observation_space
        assert isinstance(flat, spaces.Box)
        low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
        env = wrappers.TransformObservation(env, _as_float32, spaces.Box(low, high))
    if isinstance(env.action_space, spaces.Box):
        if env.action_space.is_bounded():
            env = wrappers.RescaleAction(env, np.float32(-1.0), np.float32(1.0))
        env = wrappers.ClipAction(env)
    if isinstance(env.action_space, spaces.Discrete) and env.action_space.start != 0:
        # A policy counts its choices from 0.
        start = env.action_space.start
        choices = spaces.Discrete(int(env.action_space.n))
        env = wrappers.TransformAction(env, lambda action: action + start, choices)
    return wrappers.RecordEpisodeStatistics(env)


def _as_float32(observation: Any) -> NDArray[np.float32]:
    return np.asarray(observation, np.float32)


def _check_actions(env: gym.Env[Any, Any]) -> None:
    space = env.action_space
    supported = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box)
    if not isinstance(space, supported) or (
        isinstance(space, spaces.Box) and len(space.shape) != 1
    ):
        raise EnvError(
            f"its actions are {space}, which is not supported; Discrete, MultiDiscrete, "
            "MultiBinary and flat Box are"
        )


def _is_image(space: spaces.Space[Any]) -> bool:
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    flat_or_coloured = len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[2] in (1, 3))
    return flat_or_coloured and min(space.shape[:2]) >= _SMALLEST_IMAGE


def _is_flattenable(space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.Dict):
        return all(_is_flattenable(part) for part in space.values())
    if isinstance(space, spaces.Tuple):
        return all(_is_flattenable(part) for part in space)
    flat = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    return isinstance(space, flat)


class ActionRepeat(gym.Wrapper[Any, Any, Any, Any]):
    """Hold each action for `frame_skip` frames and add up their rewards."""

    def __init__(self, env: gym.Env[Any, Any], frame_skip: int) -> None:
        super().__init__(env)
        self.frame_skip = frame_skip

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step until `frame_skip` frames have passed or the episode has ended."""
        total = 0.0
        for _ in range(self.frame_skip):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class Pixels(gym.Wrapper[Any, Any, Any, Any]):
    """Resize, turn gray (unless `rgb` is asked for) and stack an image: (H, W, C) uint8."""

    def __init__(self, env: gym.Env[Any, Any], config: EnvConfig) -> None:
        super().__init__(env)
        self._size = (config.width, config.height)
        self._rgb = config.observation == "rgb"
        channels = ("red", "green", "blue") if self._rgb else ("gray",)
        self.channels = channels * config.frame_stack
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=config.frame_stack)
        shape = (config.height, config.width, len(self.channels))
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: the first frame fills the whole stack."""
        observation, info = self.env.reset(**kwargs)
        self._frames.extend([self._process(observation)] * (self._frames.maxlen or 1))
        return np.concatenate(self._frames, -1), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and put the new frame on the stack."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(self._process(observation))
        return np.concatenate(self._frames, -1), float(reward), terminated, truncated, info

    def _process(self, image: Any) -> NDArray[np.uint8]:
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.ndim == 3 and image.shape[2] == 3 and not self._rgb:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        elif image.ndim == 2 and self._rgb:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        resized: NDArray[Any] = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        return resized.reshape(*self._size[::-1], -1)
