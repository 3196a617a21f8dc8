"""Repeats a recorded episode and yields its pictures.

Doom is deterministic, so the seed and the actions of an episode determine all of it. Axes: T env
steps; A numbers of an action; H, W a picture.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.doom.cfg import game_spec
from envs.doom.engine import smallest_resolution
from envs.doom.env import FRAMES_PER_SECOND, DoomEnv
from envs.doom.players.single import MatchEnv
from envs.errors import EnvError, describe_error
from envs.registry import frames_per_env_step, is_plain_doom, make

_FALLBACK_FPS = 30.0
_SIDE_BY_SIDE = 2  # Pictures that are more than this times as wide as high show several players.
_HANG_AFTER_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One picture of a replay.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        step: index of the env step to which it belongs.
        reward: native reward since the previous picture.
        terminated: whether the environment ended the episode with this picture.
        died: whether the player is dead; always False outside Doom.
        variables: Doom's game variables by name; empty outside Doom.
        position: where the player is, x and y in map units; None if maps are not generated.
    """

    image: NDArray[np.uint8]
    step: int
    reward: float
    terminated: bool = False
    died: bool = False
    variables: Mapping[str, float] = field(default_factory=dict)
    position: tuple[float, float] | None = None


class ActionNames:
    """The names of an environment's actions.

    Args:
        config: configuration of the environment.

    Attributes:
        space: the action space.
        choices: names of the choices to which a policy gives probabilities; empty if actions are
            continuous.
    """

    def __init__(self, config: EnvConfig) -> None:
        env = make(config)  # This starts no engine; the first reset would.
        env.close()
        doom = env.unwrapped
        # A user's wrapper may have other actions.
        is_doom = isinstance(doom, DoomEnv) and env.action_space == doom.action_space
        self._doom = doom if isinstance(doom, DoomEnv) and is_doom else None
        space, meanings = env.action_space, getattr(env.unwrapped, "get_action_meanings", None)
        if isinstance(doom, MatchEnv):  # Recordings hold the actions of the first player.
            self._doom, space = doom.match.players[0], doom.single_action_space
        if self._doom:
            names: Iterable[object] = itertools.chain.from_iterable(self._doom.action_names)
        elif isinstance(space, spaces.Discrete):
            names = meanings() if meanings else range(int(space.n))
        elif isinstance(space, spaces.MultiDiscrete):
            names = (f"{i}: {choice}" for i, n in enumerate(space.nvec) for choice in range(n))
        else:
            names = range(space.shape[0]) if isinstance(space, spaces.MultiBinary) else ()
        self.choices = tuple(str(name).lower() for name in names)
        self.space = space

    def describe(self, action: Any) -> str:
        """Return an action's name, such as `move left + attack`; outside Doom often its numbers.

        Raises:
            EnvError: If it is not in the environment's action space.
        """
        given = np.asarray(action)
        same_kind = np.can_cast(given.dtype, self.space.dtype or given.dtype, "same_kind")
        if not (same_kind and self.space.contains(given.astype(self.space.dtype))):
            raise EnvError(f"action {action!s:.40} is not in {self.space}")
        if self._doom:
            return self._doom.describe_action(action)
        return self.choices[int(action)] if isinstance(self.space, spaces.Discrete) else str(action)


def env_steps_per_second(config: EnvConfig) -> float:
    """Return the number of env steps per second of the environment's own time."""
    env = make(config, render_mode="rgb_array")
    env.close()
    doom = isinstance(env.unwrapped, DoomEnv) or game_spec(config.env) is not None
    fps = FRAMES_PER_SECOND if doom else env.metadata.get("render_fps") or _FALLBACK_FPS
    return float(fps) / frames_per_env_step(config)


def playback_fps(config: EnvConfig) -> float:
    """Return the pictures per second at which those of `resimulate` play at normal speed."""
    return env_steps_per_second(config) * pictures_per_env_step(config)


def pictures_per_env_step(config: EnvConfig) -> int:
    """Return how many pictures `resimulate` yields per env step: in Doom, one for every frame.

    In a user's wrappers, it is one: they may do anything between two env steps.
    """
    return frames_per_env_step(config) if is_plain_doom(config) else 1


def resimulate(
    config: EnvConfig, seed: int, actions: Sequence[Any] | NDArray[Any], size: tuple[int, int]
) -> Iterator[Moment]:
    """Take recorded actions again and yield a picture of every frame.

    In Doom these are all tics, including those that the agent skipped: holding an action for four
    tics is the same as taking it four times.

    Args:
        config: configuration of the environment in which the episode was recorded.
        seed: seed of the episode.
        actions: (T,) or (T, A).
        size: (W, H) of the pictures in pixels; the engine draws at the nearest larger resolution.

    Raises:
        EnvError: If the engine dies or hangs.
    """
    env = make(config, render_mode="rgb_array")
    if isinstance(env, DoomEnv):
        frame_skip = env.frame_skip
        env.close()
        width, height = smallest_resolution(*size)
        # Only the rendered pictures are used here, not the observations.
        rendered = replace(
            config.without_targets(),
            frame_skip=1,
            frame_stack=1,
            extra_channels=(),
            variables=False,
            enemy_in_view=False,
            width=width,
            height=height,
        )
        env = DoomEnv(rendered, render_mode="rgb_array")
    else:
        frame_skip = 1
    doom = env.unwrapped if isinstance(env.unwrapped, DoomEnv) else None
    variables: Callable[[], Mapping[str, float]] = doom.info if doom else dict
    try:
        with _kill_if_hanging(doom):
            env.reset(seed=seed)
        yield Moment(
            image=picture(env, size),
            step=0,
            reward=0.0,
            variables=variables(),
            position=_position(doom),
        )
        for step, action in enumerate(actions):
            for _ in range(frame_skip):
                with _kill_if_hanging(doom):
                    _, reward, terminated, truncated, _ = env.step(action)
                image = picture(env, size)
                yield Moment(
                    image=image,
                    step=step,
                    reward=float(reward),
                    terminated=terminated,
                    died=doom is not None and doom.player_died(),
                    variables=variables(),
                    position=_position(doom),
                )
                if terminated or truncated:
                    return
    finally:
        env.close()


def _position(doom: DoomEnv | None) -> tuple[float, float] | None:
    """Return where the player is on a generated map; None elsewhere."""
    if doom is None or doom.maps is None:
        return None
    pose = doom.pose()
    return pose.x, pose.y


@contextlib.contextmanager
def _kill_if_hanging(doom: DoomEnv | None) -> Iterator[None]:
    """Kill a Doom engine that hangs within this context; the call that waits for it then raises."""
    if doom is None:
        yield
        return
    watchdog = threading.Timer(_HANG_AFTER_S, doom.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()


def picture(env: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return what an environment renders, resized to (H, W, 3) uint8 RGB.

    Args:
        env: made with the render mode `rgb_array`.
        size: (W, H).

    Raises:
        EnvError: If it renders no such picture.
    """
    try:
        image = np.asarray(env.render())
    except Exception as error:  # Environments can raise anything.
        raise EnvError(f"render() failed: {describe_error(error)}") from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        array = f"{image.dtype} of shape {image.shape}"
        returned = array if image.ndim else type(image.item()).__name__
        raise EnvError(f"render() returned {returned}; a picture is (height, width, 3) uint8")
    return resized(image, size)


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an (H, W, 3) uint8 picture resized to (W, H)."""
    if image.shape[1::-1] == size:
        return image
    # Shrink by averaging, but enlarge by repeating pixels, so that single pixels stay visible.
    how = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def fitted(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a picture resized to (W, H); the screens of several players keep their proportions."""
    height, width = image.shape[:2]
    if width <= _SIDE_BY_SIDE * height:
        return resized(image, size)
    shown = np.zeros((size[1], size[0], 3), np.uint8)
    rows = min(size[1], round(size[0] * height / width))
    top = (size[1] - rows) // 2
    shown[top : top + rows] = resized(image, (size[0], rows))
    return shown
