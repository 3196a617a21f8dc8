"""Adapts any Gymnasium environment to the observations and actions that agents here support.

Observations are arranged by `envs.observations` and actions by `envs.actions`; images are then
resized, converted to gray and stacked with OpenCV.

Axes: H, W, C an image's height, width and channels; D numbers of a vector.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.actions import check_actions, with_plain_actions
from envs.config import EnvConfig
from envs.errors import EnvError
from envs.native import Native, Reported
from envs.observations import Observations

# Options that apply to images only.
_IMAGE_OPTIONS = ("observation", "height", "width", "frame_stack", "max_pool")
# Atari's numbers of actions.
_NOOP, _FIRE, _AFTER_FIRE = 0, 1, 2
_MOST_CHANNELS = 4  # that OpenCV resizes at once


def adapt(env: gym.Env[Any, Any], config: EnvConfig, native: Native) -> gym.Env[Any, Any]:
    """Wrap a Gymnasium environment so that its spaces are ones an agent here supports.

    Args:
        env: any environment.
        config: its frame skip, and how pixels are observed.
        native: the environment beneath the user's wrappers, which may be the same one.

    Returns:
        An environment whose observation space is a (H, W, C) uint8 or a (D,) float32 Box, or a Dict
        of both as `screen` and `variables`; whose action space is Discrete, MultiDiscrete,
        MultiBinary or Box, of one axis; and whose info at the end of an episode contains
        `statistics` with its native return `r` and length `l` in env steps.

    Raises:
        EnvError: If a space is not supported, or an option does not apply.
    """
    _check_actions(env, config)
    env = observed = Observations(env, config.env)
    if isinstance(env.observation_space, spaces.Box) and env.observation_space.dtype != np.uint8:
        for option in _IMAGE_OPTIONS:
            if getattr(config, option) != getattr(EnvConfig(), option):
                raise EnvError(f"{option} is an option for images; {config.env} observes numbers")
    if config.max_pool and (config.frame_skip or 1) < 2:
        raise EnvError("max_pool needs two frames per env step; set frame_skip to 2 or more")
    if (config.frame_skip or 1) > 1 or config.max_pool or config.noop_max:
        kind = EmulatedFrames if config.env.startswith("ALE/") else Frames
        env = kind(env, config)
    if config.fire_reset:
        env = LifeStart(env)
    if env.observation_space.dtype != np.float32:
        env = Pixels(env, config)
    return Reported(
        with_plain_actions(env),
        native,
        config.env,
        native_reward=config.native_reward,
        left_out=observed.left_out,
    )


def _check_actions(env: gym.Env[Any, Any], config: EnvConfig) -> None:
    space = env.action_space
    check_actions(space, config.env)
    if config.noop_max and not (isinstance(space, spaces.Discrete) and space.start == _NOOP):
        raise EnvError(
            f"noop_max needs Discrete actions, of which 0 does nothing; {config.env} has {space}"
        )
    if config.fire_reset and not hasattr(env.unwrapped, "get_action_meanings"):
        raise EnvError(f"fire_reset is an option for Atari games; {config.env} is not one")


class Frames(gym.Wrapper[Any, Any, Any, Any]):
    """Steps the frames of an env step, and the no-ops at the start of an episode.

    Each action is held for `frame_skip` frames, and their rewards are summed. With `max_pool` the
    observation is the maximum over the last two frames, because some sprites are drawn only in
    every other frame (Mnih et al. 2015, Methods). An episode starts with 1 to `noop_max` no-ops
    (same, extended data table 1). Their number is drawn by the environment's own generator, so the
    episode's seed determines it; their rewards are added to the first env step's.

    Args:
        env: an environment that steps one frame at a time.
        config: with `frame_skip`, `max_pool` and `noop_max`.
    """

    def __init__(self, env: gym.Env[Any, Any], config: EnvConfig) -> None:
        super().__init__(env)
        self._frame_skip = config.frame_skip or 1
        self._max_pool, self._noop_max = config.max_pool, config.noop_max
        self._carried_reward = 0.0  # of no-ops, to be added to the next env step's

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode, with no-ops if `noop_max` is set."""
        observation, info = self.env.reset(**kwargs)
        self._carried_reward = 0.0
        if self._noop_max:
            for _ in range(int(self.unwrapped.np_random.integers(1, self._noop_max + 1))):
                observation, reward, terminated, truncated, info = self.hold(_NOOP, 1)
                self._carried_reward += reward
                if terminated or truncated:
                    observation, info = self.env.reset()
                    self._carried_reward = 0.0
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step until `frame_skip` frames have passed or the episode has ended."""
        carried, self._carried_reward = self._carried_reward, 0.0
        frames = self._frame_skip - 1 if self._max_pool else self._frame_skip
        observation, reward, terminated, truncated, info = self.hold(action, frames)
        if self._max_pool and not (terminated or truncated):
            before, reward_before = observation, reward
            observation, reward, terminated, truncated, info = self.hold(action, 1)
            observation, reward = _maximum(before, observation), reward_before + reward
        return observation, carried + reward, terminated, truncated, info

    def hold(self, action: Any, frames: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold an action for a number of frames, or until the episode has ended."""
        total = 0.0
        for _ in range(frames):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class EmulatedFrames(Frames):
    """The same for Atari, whose emulator holds actions itself, without returning every frame."""

    def hold(self, action: Any, frames: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Let the emulator hold an action for a number of frames; it stops at an episode's end."""
        # Gymnasium has no public method for it, and reading every frame would take twice as long.
        self.unwrapped._frameskip = frames  # type: ignore[attr-defined] # AtariEnv's
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward), terminated, truncated, info


def _maximum(before: Any, after: Any) -> Any:
    """Return the later of two observations, with the pixel-wise maximum of both images."""
    if isinstance(after, dict):
        return {**after, "screen": np.maximum(before["screen"], after["screen"])}
    return np.maximum(before, after)


class LifeStart(gym.Wrapper[Any, Any, Any, Any]):
    """Starts every life with FIRE (Huang et al. 2022, the 37 details of PPO, Atari details 3, 4).

    A game that has an action FIRE may wait for it. An episode starts with FIRE and the action after
    it; each further life with a no-op and these two, or with the no-op alone if the game has no
    FIRE. A further life starts within the env step that lost the previous one, and `life_began` is
    then True in info. The rewards of these additional steps are added to those of the env step to
    which they belong.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        meanings = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined] # AtariEnv's
        fires = len(meanings) > _AFTER_FIRE and meanings[_FIRE] == "FIRE"
        self._start = (_FIRE, _AFTER_FIRE) if fires else ()
        self._lives = 0
        self._carried_reward = 0.0  # of a first life's start, to be added to the next env step's

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode and its first life."""
        observation, info = self.env.reset(**kwargs)
        self._carried_reward = 0.0
        for action in self._start:
            observation, reward, terminated, truncated, info = self.env.step(action)
            self._carried_reward += float(reward)
            if terminated or truncated:
                observation, info = self.env.reset()
                self._carried_reward = 0.0
        self._lives = info.get("lives", 0)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and start the next life if one is lost."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        total, self._carried_reward = self._carried_reward + float(reward), 0.0
        began = not (terminated or truncated) and lost_life(self._lives, info)
        for first in (_NOOP, *self._start) if began else ():
            observation, reward, terminated, truncated, info = self.env.step(first)
            total += float(reward)
            if terminated or truncated:
                break
        self._lives = info.get("lives", 0)
        return observation, total, terminated, truncated, {**info, "life_began": began}


def lost_life(lives: int, info: Mapping[str, Any]) -> bool:
    """Return whether a life was lost in a game that continues.

    Some games have 0 lives left for a few frames before they are over; that does not count.

    Args:
        lives: the number of lives before a step.
        info: info of the step, with `lives` if the game counts them.
    """
    return 0 < int(info.get("lives", 0)) < lives


class Pixels(gym.Wrapper[Any, Any, Any, Any]):
    """Resizes images, converts them to gray (unless `rgb` is set) and stacks them: (H, W, C) uint8.

    The image is the whole observation, or `screen` in a dictionary. Images whose number of channels
    is neither 1 nor 3, such as stacked frames, keep all of them.

    Raises:
        EnvError: If a colour is asked for, and the channels are not colours.
    """

    def __init__(self, env: gym.Env[Any, Any], config: EnvConfig) -> None:
        super().__init__(env)
        self._size = (config.width, config.height)
        self._rgb = config.observation == "rgb"
        whole = env.observation_space
        self._in_dict = isinstance(whole, spaces.Dict)
        image = whole["screen"] if isinstance(whole, spaces.Dict) else whole
        given = (*(image.shape or ()), 1)[2]
        self._keeps_channels = given not in (1, 3)
        if self._keeps_channels and config.observation != EnvConfig().observation:
            raise EnvError(
                f"observation is an option for images with 1 or 3 channels; those of {config.env} "
                f"have {given}, which are observed as they are"
            )
        self._starts_lives = config.fire_reset
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=config.frame_stack)
        channels = given if self._keeps_channels else 3 if self._rgb else 1
        shape = (config.height, config.width, channels * config.frame_stack)
        stack = spaces.Box(0, 255, shape, np.uint8)
        self.observation_space = stack
        if isinstance(whole, spaces.Dict):
            self.observation_space = spaces.Dict({**whole.spaces, "screen": stack})

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode: the first frame fills the whole stack."""
        observation, info = self.env.reset(**kwargs)
        self._frames.clear()
        return self._stack(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and add the new frame to the stack."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self._starts_lives and info["life_began"]:
            self._frames.clear()
        return self._stack(observation), float(reward), terminated, truncated, info

    def _stack(self, observation: Any) -> Any:
        frame = self._process(observation["screen"] if self._in_dict else observation)
        missing = (self._frames.maxlen or 1) - len(self._frames)
        self._frames.extend([frame] * max(1, missing))
        stack = np.concatenate(self._frames, -1)
        return {**observation, "screen": stack} if self._in_dict else stack

    def _process(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.ndim == 3 and not self._keeps_channels and not self._rgb:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        elif image.ndim == 2 and self._rgb:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
        channels = 1 if image.ndim == 2 else image.shape[2]
        cuts = range(_MOST_CHANNELS, channels, _MOST_CHANNELS)
        few = np.split(image, cuts, axis=-1) if cuts else [image]
        parts = [cv2.resize(part, self._size, interpolation=cv2.INTER_AREA) for part in few]
        shape = (*self._size[::-1], -1)
        return np.concatenate([part.reshape(shape) for part in parts], -1, dtype=np.uint8)
