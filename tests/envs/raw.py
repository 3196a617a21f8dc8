"""The engine as ViZDoom itself runs it, to compare `DoomEnv` with."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import vizdoom

from envs import DoomEnv, EnvConfig
from envs.doom.cfg import BUNDLED, FREEDOOM2


@contextlib.contextmanager
def raw_game(
    name: str,
    *,
    screen_format: str = "DOOM_256_COLORS8",
    resolution: str = "RES_160X120",
    timeout: bool = True,
    **setters: Any,
) -> Iterator[vizdoom.DoomGame]:
    """Run a bundled scenario as ViZDoom loads it; `timeout` keeps the .cfg's time limit."""
    game = vizdoom.DoomGame()
    game.load_config(str(BUNDLED / f"{name}.cfg"))
    game.set_doom_game_path(str(FREEDOOM2))
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.add_game_args("+snd_efx 0")  # Effects of rooms abort engines with some versions of OpenAL.
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_resolution(vizdoom.ScreenResolution.__members__[resolution])
    game.set_screen_format(vizdoom.ScreenFormat.__members__[screen_format])
    if not timeout:
        game.set_episode_timeout(0)
    for setter, value in setters.items():
        getattr(game, f"set_{setter}")(value)
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # The engine writes where it starts.
        try:
            game.init()
        finally:
            os.chdir(before)
        try:
            yield game
        finally:
            game.close()


def start_episode(game: vizdoom.DoomGame, seed: int) -> None:
    game.set_seed(seed)
    game.new_episode()


def press(env: DoomEnv, game: vizdoom.DoomGame, action: Any) -> list[float]:
    """Return the values of a raw game's buttons, whose order may differ from `DoomEnv`'s."""
    values = dict(zip(env.game_spec.buttons, env._actions.buttons(action), strict=True))
    return [values[button.name] for button in game.get_available_buttons()]


def noop(env: DoomEnv) -> Any:
    return np.zeros(env.action_space.shape, np.int64) if env.action_space.shape else 0


def random_actions(env: DoomEnv, count: int, seed: int = 0) -> list[Any]:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(count)]


@contextlib.contextmanager
def doom(env: str = "basic", render_mode: str | None = None, **options: Any) -> Iterator[DoomEnv]:
    """Make a Doom environment, and close it afterwards."""
    made = DoomEnv(EnvConfig(env=env, **options), render_mode)
    try:
        yield made
    finally:
        made.close()


# The engine's smallest screen: nothing is resized.
NATIVE = {"height": 120, "width": 160}
