"""Any Gymnasium environment, seen the way an agent here sees a world.

Pixels are resized, turned gray and stacked with OpenCV; small grids of categories (MiniGrid) and
nested observations become vectors; a dictionary that holds an image becomes `screen` and
`variables`; bounded continuous actions are asked for in -1 to 1 and clipped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
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
# Options that only images have a use for.
_OF_IMAGES = ("observation", "height", "width", "frame_stack", "max_pool")
# How the games of Atari number their actions.
_NOOP, _FIRE, _AFTER_FIRE = 0, 1, 2


def adapt(env: gym.Env[Any, Any], config: EnvConfig) -> gym.Env[Any, Any]:
    """Wrap a Gymnasium environment so that its spaces are ones an agent here supports.

    Args:
        env: any environment.
        config: its frame skip, and how pixels are observed.

    Returns:
        An environment whose observation space is a (H, W, C) uint8 or a (D,) float32 Box, or a Dict
        of both as `screen` and `variables`; whose action space is Discrete, MultiDiscrete,
        MultiBinary or Box; and whose info at the end of an episode holds `statistics` with its
        native return `r` and length `l` in env steps.

    Raises:
        EnvError: If a space is not supported, or an option is for images and there is none.
    """
    _check_actions(env, config)
    env = _arrange_observations(env, config)
    if config.max_pool and (config.frame_skip or 1) < 2:
        raise EnvError("max_pool takes two frames of an env step: give a frame_skip of 2 or more")
    if (config.frame_skip or 1) > 1 or config.max_pool or config.noop_max:
        kind = EmulatedFrames if config.env.startswith("ALE/") else Frames
        env = kind(env, config)
    if config.fire_reset:
        env = LifeStart(env)
    if not isinstance(env.observation_space, spaces.Box) or _is_image(env.observation_space):
        env = Pixels(env, config)
    if isinstance(env.action_space, spaces.Box):
        if env.action_space.is_bounded():
            env = wrappers.RescaleAction(env, np.float32(-1.0), np.float32(1.0))
        env = wrappers.ClipAction(env)
    if isinstance(env.action_space, spaces.Discrete) and env.action_space.start != 0:
        # A policy counts its choices from 0.
        start = env.action_space.start
        choices = spaces.Discrete(int(env.action_space.n))
        env = wrappers.TransformAction(env, lambda action: action + start, choices)
    # Under a name of its own: the environment may come with Gymnasium's statistics.
    return wrappers.RecordEpisodeStatistics(env, stats_key="statistics")


def _arrange_observations(env: gym.Env[Any, Any], config: EnvConfig) -> gym.Env[Any, Any]:
    """Make observations an image, a vector, or a dictionary of both."""
    space = env.observation_space
    if _is_image(space):
        return env
    parts = dict(space.items()) if isinstance(space, spaces.Dict) else {}
    images = [name for name, part in parts.items() if _is_image(part)]
    if not images and _is_flattenable(space):
        for option in _OF_IMAGES:
            if getattr(config, option) != getattr(EnvConfig(), option):
                raise EnvError(f"{option} is an option for images; {config.env} observes numbers")
        vector = _vector_space(space)
        return wrappers.TransformObservation(env, lambda obs: _vector(space, obs), vector)
    numbers = spaces.Dict({name: part for name, part in parts.items() if name not in images})
    if len(images) != 1 or not _is_flattenable(numbers):
        raise EnvError(
            f"{config.env} observes {space}, which is not supported; numbers are, a uint8 image "
            "(height, width), with 1 or 3 channels at its end if any, and dictionaries of numbers "
            "and one image"
        )
    image = images[0]
    if len(parts) == 1:
        return wrappers.TransformObservation(env, lambda obs: obs[image], parts[image])
    both = {"screen": parts[image], "variables": _vector_space(numbers)}

    def take_apart(obs: Any) -> dict[str, NDArray[Any]]:
        rest = {name: obs[name] for name in numbers}
        return {"screen": obs[image], "variables": _vector(numbers, rest)}

    return wrappers.TransformObservation(env, take_apart, spaces.Dict(both))


def _vector_space(space: spaces.Space[Any]) -> spaces.Box:
    """Give the space of a vector of float32 that holds whatever is nested in another."""
    flat = spaces.flatten_space(space)
    assert isinstance(flat, spaces.Box)
    return spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32))


def _vector(space: spaces.Space[Any], observation: Any) -> NDArray[np.float32]:
    return np.asarray(spaces.flatten(space, observation), np.float32)


def _check_actions(env: gym.Env[Any, Any], config: EnvConfig) -> None:
    space = env.action_space
    supported = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box)
    if not isinstance(space, supported) or (
        isinstance(space, spaces.Box) and len(space.shape) != 1
    ):
        raise EnvError(
            f"its actions are {space}, which is not supported; Discrete, MultiDiscrete, "
            "MultiBinary and flat Box are"
        )
    if config.noop_max and not (isinstance(space, spaces.Discrete) and space.start == _NOOP):
        raise EnvError(f"noop_max needs an action 0, that does nothing; {config.env} has {space}")
    if config.fire_reset and not hasattr(env.unwrapped, "get_action_meanings"):
        raise EnvError(f"fire_reset is an option for games of Atari, which {config.env} is not")


def _is_image(space: spaces.Space[Any]) -> bool:
    if not _is_pixels(space):
        return False
    shape = space.shape or ()
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))


def _is_pixels(space: spaces.Space[Any]) -> bool:
    """Tell pixels, in whatever order of axes, from a grid of categories."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) < 2:
        return False
    return sorted(space.shape)[-2] >= _SMALLEST_IMAGE


def _is_flattenable(space: spaces.Space[Any]) -> bool:
    if _is_pixels(space):
        return False  # As a vector it would be learned from badly, without a word.
    if isinstance(space, spaces.Dict):
        return all(_is_flattenable(part) for part in space.values())
    if isinstance(space, spaces.Tuple):
        return all(_is_flattenable(part) for part in space)
    flat = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    return isinstance(space, flat)


class Frames(gym.Wrapper[Any, Any, Any, Any]):
    """Plays the frames of an env step, and those before an episode.

    Holds each action for `frame_skip` frames and adds up their rewards; takes the maximum over the
    last two, where sprites are drawn only in every other frame (Mnih et al. 2015, Methods); and
    begins an episode with a number of no-ops from 1 to `noop_max` (same, extended data table 1),
    which the environment's own generator draws, so that the episode's seed decides it. What they
    are paid is paid with the first env step.

    Args:
        env: what is played, a frame a step.
        config: its `frame_skip`, `max_pool` and `noop_max`.
    """

    def __init__(self, env: gym.Env[Any, Any], config: EnvConfig) -> None:
        super().__init__(env)
        self._frame_skip = config.frame_skip or 1
        self._max_pool, self._noop_max = config.max_pool, config.noop_max
        self._owed = 0.0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, with no-ops if so configured."""
        observation, info = self.env.reset(**kwargs)
        self._owed = 0.0
        if self._noop_max:
            for _ in range(int(self.unwrapped.np_random.integers(1, self._noop_max + 1))):
                observation, reward, terminated, truncated, info = self.play(_NOOP, 1)
                self._owed += reward
                if terminated or truncated:
                    observation, info = self.env.reset()
                    self._owed = 0.0
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step until `frame_skip` frames have passed or the episode has ended."""
        owed, self._owed = self._owed, 0.0
        frames = self._frame_skip - 1 if self._max_pool else self._frame_skip
        observation, reward, terminated, truncated, info = self.play(action, frames)
        if self._max_pool and not (terminated or truncated):
            before, paid = observation, reward
            observation, reward, terminated, truncated, info = self.play(action, 1)
            observation, reward = _brighter(before, observation), paid + reward
        return observation, owed + reward, terminated, truncated, info

    def play(self, action: Any, frames: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold an action until so many frames have passed or the episode has ended."""
        total = 0.0
        for _ in range(frames):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class EmulatedFrames(Frames):
    """The same for an emulated game, whose frames are not handed over unless they are looked at."""

    def play(self, action: Any, frames: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Let the emulator hold an action for so many frames; it stands still after an end."""
        # There is no public way to change it; reading each frame's screen would take twice as long.
        self.unwrapped._frameskip = frames  # type: ignore[attr-defined] # AtariEnv's
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward), terminated, truncated, info


def _brighter(before: Any, after: Any) -> Any:
    """Return the later of two observations, its image being the maximum of both."""
    if isinstance(after, dict):
        return {**after, "screen": np.maximum(before["screen"], after["screen"])}
    return np.maximum(before, after)


class LifeStart(gym.Wrapper[Any, Any, Any, Any]):
    """Begins lives as the 37-details article has it (Huang et al. 2022, Atari details 3 and 4).

    A game that has an action FIRE may wait for it: an episode begins with FIRE and the action after
    it, a further life with a no-op before them, or with the no-op alone where there is no FIRE.
    A further life begins in the env step that lost the last one, and is told of by `life_began`
    in info. What these env steps are paid is paid with the one they belong to.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        meanings = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined] # AtariEnv's
        fires = len(meanings) > _AFTER_FIRE and meanings[_FIRE] == "FIRE"
        self._start = (_FIRE, _AFTER_FIRE) if fires else ()
        self._lives, self._owed = 0, 0.0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode and its first life."""
        observation, info = self.env.reset(**kwargs)
        self._owed = 0.0
        for action in self._start:
            observation, reward, terminated, truncated, info = self.env.step(action)
            self._owed += float(reward)
            if terminated or truncated:
                observation, info = self.env.reset()
                self._owed = 0.0
        self._lives = info.get("lives", 0)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and begin the next life if one is lost."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        total, self._owed = self._owed + float(reward), 0.0
        began = not (terminated or truncated) and lost_life(self._lives, info)
        for first in (_NOOP, *self._start) if began else ():
            observation, reward, terminated, truncated, info = self.env.step(first)
            total += float(reward)
            if terminated or truncated:
                break
        self._lives = info.get("lives", 0)
        return observation, total, terminated, truncated, {**info, "life_began": began}


def lost_life(lives: int, info: Mapping[str, Any]) -> bool:
    """Tell whether a life was lost and the game goes on.

    Some games have 0 lives left for a few frames before they are over.

    Args:
        lives: how many there were.
        info: of the step since, with `lives` if the game counts them.
    """
    return 0 < int(info.get("lives", 0)) < lives


class Pixels(gym.Wrapper[Any, Any, Any, Any]):
    """Resize, turn gray (unless `rgb` is asked for) and stack an image: (H, W, C) uint8.

    The image is the whole observation, or `screen` in a dictionary.
    """

    def __init__(self, env: gym.Env[Any, Any], config: EnvConfig) -> None:
        super().__init__(env)
        self._size = (config.width, config.height)
        self._rgb = config.observation == "rgb"
        channels = ("red", "green", "blue") if self._rgb else ("gray",)
        self.channels = channels * config.frame_stack
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=config.frame_stack)
        shape = (config.height, config.width, len(self.channels))
        stack = spaces.Box(0, 255, shape, np.uint8)
        whole = env.observation_space
        self._in_dict = isinstance(whole, spaces.Dict)
        self.observation_space = stack
        if isinstance(whole, spaces.Dict):
            self.observation_space = spaces.Dict({**whole.spaces, "screen": stack})

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: the first frame fills the whole stack."""
        observation, info = self.env.reset(**kwargs)
        self._frames.clear()
        return self._stack(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and put the new frame on the stack."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if info.get("life_began", False):
            self._frames.clear()
        return self._stack(observation), float(reward), terminated, truncated, info

    def _stack(self, observation: Any) -> Any:
        frame = self._process(observation["screen"] if self._in_dict else observation)
        missing = (self._frames.maxlen or 1) - len(self._frames)
        self._frames.extend([frame] * max(1, missing))
        stack = np.concatenate(self._frames, -1)
        return {**observation, "screen": stack} if self._in_dict else stack

    def _process(self, image: Any) -> NDArray[np.uint8]:
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.ndim == 3 and image.shape[2] == 3 and not self._rgb:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        elif image.ndim == 2 and self._rgb:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        resized: NDArray[Any] = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        return resized.reshape(*self._size[::-1], -1)
