"""Looking at an episode again: Doom is deterministic, so a seed and actions are the whole of it.

Axes: T env steps, H, W the picture.
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

from envs.cfg import game_spec
from envs.config import EnvConfig
from envs.doom import FRAMES_PER_SECOND, DoomEnv
from envs.engine import smallest_resolution
from envs.errors import EnvError
from envs.registry import frames_per_env_step, make

_FALLBACK_FPS = 30.0
_HANG_AFTER_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One picture of a replay.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        step: index of the env step it belongs to.
        reward: native reward since the picture before.
        terminated: whether the world ended with this picture.
        died: whether the player is dead; unknown outside Doom.
        variables: of the game, by name; none outside Doom.
    """

    image: NDArray[np.uint8]
    step: int
    reward: float
    terminated: bool = False
    died: bool = False
    variables: Mapping[str, float] = field(default_factory=dict)


class ActionNames:
    """What the actions of a world are called.

    Args:
        config: the world.

    Attributes:
        space: of the actions.
        choices: names of the choices that a policy gives probabilities for; none where actions are
            continuous.
    """

    def __init__(self, config: EnvConfig) -> None:
        env = make(config)  # An engine would start at the first reset.
        env.close()
        self._doom = env if isinstance(env, DoomEnv) else None
        space, meanings = env.action_space, getattr(env.unwrapped, "get_action_meanings", None)
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
        """Name an action, as in `move left + attack`; the numbers themselves outside Doom.

        Raises:
            EnvError: If it is no action of this world.
        """
        given = np.asarray(action)
        same_kind = np.can_cast(given.dtype, self.space.dtype or given.dtype, "same_kind")
        if not (same_kind and self.space.contains(given.astype(self.space.dtype))):
            raise EnvError(f"action {action!s:.40} is not in {self.space}")
        if self._doom:
            return self._doom.describe_action(action)
        return self.choices[int(action)] if isinstance(self.space, spaces.Discrete) else str(action)


def env_steps_per_second(config: EnvConfig) -> float:
    """Give how many decisions an agent takes in a second of the game's own time."""
    env = make(config, render_mode="rgb_array")
    env.close()
    doom = isinstance(env, DoomEnv)
    fps = FRAMES_PER_SECOND if doom else env.metadata.get("render_fps") or _FALLBACK_FPS
    return float(fps) / frames_per_env_step(config)


def playback_fps(config: EnvConfig) -> float:
    """Give the pictures a second at which `resimulate` shows the game at its own speed."""
    return env_steps_per_second(config) * pictures_per_env_step(config)


def pictures_per_env_step(config: EnvConfig) -> int:
    """Give how many pictures `resimulate` shows of an env step: in Doom, one of every frame."""
    return frames_per_env_step(config) if game_spec(config.env) is not None else 1


def resimulate(
    config: EnvConfig, seed: int, actions: Sequence[Any] | NDArray[Any], size: tuple[int, int]
) -> Iterator[Moment]:
    """Play recorded actions again and show every frame.

    In Doom that is every tic, also those that the agent skipped: holding an action for four tics is
    the same as taking it four times.

    Args:
        config: the world the episode was recorded in.
        seed: the episode's.
        actions: (T,) or (T, A).
        size: (W, H) of the pictures in pixels; the engine draws as finely as it can.

    Raises:
        EnvError: If the engine dies or hangs.
    """
    env = make(config, render_mode="rgb_array")
    if isinstance(env, DoomEnv):
        frame_skip = env.frame_skip
        env.close()
        width, height = smallest_resolution(*size)
        # What the policy saw does not matter here, only what a person is to see.
        plain = replace(config, frame_skip=1, frame_stack=1, extra_channels=(), variables=False)
        env = DoomEnv(replace(plain, width=width, height=height), render_mode="rgb_array")
        told: Callable[[], Mapping[str, float]] = env.info
    else:
        frame_skip = 1
        told = dict
    try:
        with _killed_if_it_hangs(env):
            env.reset(seed=seed)
        yield Moment(image=picture(env, size), step=0, reward=0.0, variables=told())
        for step, action in enumerate(actions):
            for _ in range(frame_skip):
                with _killed_if_it_hangs(env):
                    _, reward, terminated, truncated, _ = env.step(action)
                image = picture(env, size)
                yield Moment(
                    image=image,
                    step=step,
                    reward=float(reward),
                    terminated=terminated,
                    died=isinstance(env, DoomEnv) and env.player_died(),
                    variables=told(),
                )
                if terminated or truncated:
                    return
    finally:
        env.close()


@contextlib.contextmanager
def _killed_if_it_hangs(env: Any) -> Iterator[None]:
    """Kill a Doom engine that keeps us waiting; the call that waits then raises."""
    if not isinstance(env, DoomEnv):
        yield
        return
    watchdog = threading.Timer(_HANG_AFTER_S, env.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()


def picture(env: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Give what an environment draws, as (H, W, 3) uint8 RGB.

    Args:
        env: made to draw `rgb_array`.
        size: (W, H).
    """
    return resized(np.asarray(env.render()), size)


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Give an (H, W, 3) uint8 picture another size (W, H)."""
    if image.shape[1::-1] == size:
        return image
    # Shrink by averaging, enlarge by repeating pixels: they are meant to be seen.
    how = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)
