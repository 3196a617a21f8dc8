"""Looking at an episode again: Doom is deterministic, so a seed and actions are the whole of it.

Axes: T env steps, H, W the picture.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from envs.cfg import game_spec
from envs.config import EnvConfig
from envs.doom import FRAMES_PER_SECOND, DoomEnv
from envs.engine import smallest_resolution
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
        action: what the action presses, in words; the number itself outside Doom.
    """

    image: NDArray[np.uint8]
    step: int
    reward: float
    action: str


def env_steps_per_second(config: EnvConfig) -> float:
    """Give how many decisions an agent takes in a second of the game's own time."""
    env = make(config, render_mode="rgb_array")
    env.close()
    doom = isinstance(env, DoomEnv)
    fps = FRAMES_PER_SECOND if doom else env.metadata.get("render_fps") or _FALLBACK_FPS
    return float(fps) / frames_per_env_step(config)


def playback_fps(config: EnvConfig) -> float:
    """Give the pictures a second at which `resimulate` shows the game at its own speed."""
    # Doom shows every frame, other games one for each env step.
    pictures = frames_per_env_step(config) if game_spec(config.env) is not None else 1
    return env_steps_per_second(config) * pictures


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
    else:
        frame_skip = 1
    try:
        with _killed_if_it_hangs(env):
            env.reset(seed=seed)
        yield Moment(image=_picture(env, size), step=0, reward=0.0, action="")
        for step, action in enumerate(actions):
            words = env.describe_action(action) if isinstance(env, DoomEnv) else str(action)
            for _ in range(frame_skip):
                with _killed_if_it_hangs(env):
                    _, reward, terminated, truncated, _ = env.step(action)
                image = _picture(env, size)
                yield Moment(image=image, step=step, reward=float(reward), action=words)
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


def _picture(env: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    image = np.asarray(env.render())
    if image.shape[1::-1] == size:
        return image
    # Shrink by averaging, enlarge by repeating pixels: they are meant to be seen.
    how = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_NEAREST
    resized: NDArray[Any] = cv2.resize(image, size, interpolation=how)
    return resized
