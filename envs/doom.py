"""Doom as a Gymnasium environment, with true ends and true last frames.

Axes: H, W the observed screen, C its channels (the base channels, then the extra ones, repeated for
each stacked frame, oldest first).
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.actions import ActionSet
from envs.cfg import GameSpec, game_spec
from envs.config import EnvConfig
from envs.engine import (
    ENGINE_ERRORS,
    abandon_engine,
    end_engine,
    kill_engine,
    smallest_resolution,
    start_engine,
)
from envs.errors import EnvError
from envs.shared import observation_parts
from envs.wad import read_palette

FRAMES_PER_SECOND = 35  # Doom's tics a second
FRAME_SKIP = 4  # Frames an env step lasts unless asked otherwise, as in most of the literature.

# Counters of the player's deeds: reported as differences within the episode, because the engine
# carries some of them over from one episode to the next (a shot that hits while it restarts).
COUNTERS = {
    "kills": "KILLCOUNT",
    "items": "ITEMCOUNT",
    "secrets": "SECRETCOUNT",
    "hits": "HITCOUNT",
    "hits_taken": "HITS_TAKEN",
    "damage": "DAMAGECOUNT",
    "damage_taken": "DAMAGE_TAKEN",
}

# What `info` tells in every world, whatever its .cfg lists.
_ALWAYS_TOLD = ("HEALTH",)

# What divides a game variable before an agent sees it, so that usual values lie within 0 to 1.
_SCALES = {"HEALTH": 100.0, "ARMOR": 100.0, "ANGLE": 360.0, "PITCH": 90.0, "ROLL": 180.0}
_SCALES |= {"SELECTED_WEAPON": 10.0, "ATTACK_READY": 1.0, "ALTATTACK_READY": 1.0, "ON_GROUND": 1.0}
_SCALES_BY_PREFIX = {"AMMO": 50.0, "SELECTED_WEAPON_AMMO": 50.0, "WEAPON": 1.0}
_SCALES_BY_PREFIX |= {"POSITION": 1000.0, "VELOCITY": 20.0, "CAMERA": 1000.0, "USER": 100.0}
_OTHER_SCALE = 10.0
_VARIABLE_BOUND = 10.0  # normalised variables are clipped to +- this

# How far the weapon swings at most: MAXBOB in the engine's p_user.cpp, a unit a drawn frame.
_LARGEST_SWING = 16


class DoomEnv(gym.Env[Any, Any]):
    """One game of Doom, stepped tic by tic, drawn only when an agent looks.

    Observation space: a (H, W, C) uint8 Box, the screen; with `variables` a Dict of `screen` and
    `variables`, a (V,) float32 Box. Of a `palette` screen the bytes are names of colours, which no
    wrapper may resize or average; those of `rgb` and `gray` it may. Action space: Discrete or
    MultiDiscrete, see `ActionSet`; `action_names` names the choices. Reward: the scenario's native
    reward over the env step.

    An episode is `terminated` by death or by the scenario's goal, and `truncated` when its time
    runs out; then the last observation is the true last frame. After death the engine draws no
    more, and the last observation is the last frame it drew. `info` holds the game variables by
    name, and at the end `statistics`: return `r`, length `l` in env steps, `frames` (counting the
    last action whole), and `COUNTERS`. `episode` is left to Gymnasium's RecordEpisodeStatistics.

    The engine starts at the first reset. The same seed and actions give the same episode, bit for
    bit, whatever the engine played before.

    Args:
        config: how the world is observed and acted upon.
        render_mode: None or `rgb_array`.

    Raises:
        EnvError: If there is no such world, or its files cannot be read.
    """

    def __init__(self, config: EnvConfig, render_mode: str | None = None) -> None:
        spec = game_spec(config.env)
        if spec is None:
            raise EnvError(f"{config.env} is not a world of Doom")
        self.config = config
        self.game_spec: GameSpec = spec
        self.frame_skip = config.frame_skip or FRAME_SKIP
        self.time_limit = config.time_limit or spec.time_limit
        self.palette: NDArray[np.uint8] = read_palette(spec.iwad, spec.wad)  # (256, 3) RGB
        # What an index is looked up in, as OpenCV wants it: colours, or their brightness.
        self._table: NDArray[Any] = np.ascontiguousarray(self.palette[:, None])
        if config.observation == "gray":
            self._table = cv2.cvtColor(self._table, cv2.COLOR_RGB2GRAY)
        # Per instance, not per class: the channels of what is observed, `palette` among them.
        base = {"palette": ("palette",), "gray": ("gray",), "rgb": ("red", "green", "blue")}
        extra = tuple({"automap": "palette"}.get(name, name) for name in config.extra_channels)
        self.channels: tuple[str, ...] = (*base[config.observation], *extra) * config.frame_stack
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": FRAMES_PER_SECOND / self.frame_skip,
            "channels": self.channels,
            "palette": self.palette,
        }
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise EnvError(f"render_mode {render_mode!r} is not supported; use 'rgb_array'")
        self.render_mode = render_mode
        self._actions = ActionSet(spec.buttons, config.actions, config.delta_bins)
        self.action_space = self._actions.space
        self.action_names = self._actions.names
        self.observation_space = self._observation_space()
        told = [n for n in (*_ALWAYS_TOLD, *COUNTERS.values()) if n not in spec.variables]
        self.info_keys: tuple[str, ...] = (*spec.variables, *told)
        self.episode_keys: tuple[str, ...] = ("r", "l", "frames", *COUNTERS)
        self._is_counter = np.isin(self.info_keys, list(COUNTERS.values()))
        self._scales = np.array([_scale(name) for name in spec.variables], np.float32)
        self._resolution = smallest_resolution(config.width, config.height)
        # Every so many rows and columns of the engine's screen, where that is what is observed.
        ratios = self._resolution[1] / config.height, self._resolution[0] / config.width
        whole = all(ratio.is_integer() for ratio in ratios)
        self._pixels = tuple(slice(None, None, int(r)) for r in ratios) if whole else None
        self._screen_part = "screen" if config.variables else "obs"
        self._room: Mapping[str, NDArray[Any]] | None = None
        self._observed: Mapping[str, NDArray[Any]] = {}
        self._game: Any = None
        self._done = True
        # Only a player that moves by itself swings its weapon.
        moves = any(button.startswith("MOVE_") for button in spec.buttons)
        self._swings = moves and spec.settings.get("render_weapon", True)
        self._frames_drawn = 0  # since the weapon was at rest

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: decides the whole episode together with the actions; without it, the next one
                of the environment's own generator is drawn.
            options: unused.

        Returns:
            The first observation, and the info with the episode's own seed as `episode_seed`.

        Raises:
            EnvError: If no engine could be started, or it died.
        """
        super().reset(seed=seed)
        if self._game is None:
            self._start()
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        try:
            self._settle_weapon()
            self._game.set_seed(seed % 2**32)
            self._game.new_episode()
            variables = self._game.get_state().game_variables
            self._carried_over = np.where(self._is_counter, variables, 0.0)
            self._look(first=True)
            self._first = self._counters()
        except ENGINE_ERRORS as error:
            raise self._died(error) from error
        self._done, self._tics, self._return, self._length = False, 0, 0.0, 0
        return self._observation(), {**self.info(), "episode_seed": seed}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold an action for `frame_skip` tics, or until the episode ends.

        Args:
            action: an element of the action space.

        Returns:
            observation, native reward, terminated, truncated, info.
        """
        reward, terminated, truncated = self.advance(action)
        info: dict[str, Any] = dict(self.info())
        if self._done:
            info["statistics"] = self.episode_statistics()
        return self._observation(), reward, terminated, truncated, info

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        """Do what `step` does, for who reads the observation where `write_to` puts it.

        Returns:
            native reward, terminated, truncated.

        Raises:
            EnvError: If the engine died; reset() starts another one.
        """
        if self._done:
            raise EnvError("the episode has ended; call reset() before step()")
        tics = self.frame_skip
        if self.time_limit is not None:
            tics = min(tics, self.time_limit - self._tics)
        game = self._game
        try:
            reward: float = game.make_action(self._actions.buttons(action), tics)
            self._tics += tics
            self._return += reward
            self._length += 1
            terminated: bool = game.is_episode_finished()
            truncated = not terminated and self._tics == self.time_limit
            if not terminated:
                self._look()
        except ENGINE_ERRORS as error:
            raise self._died(error) from error
        self._done = terminated or truncated
        return reward, terminated, truncated

    def write_to(self, room: Mapping[str, NDArray[Any]]) -> None:
        """Write every observation into these arrays from now on, instead of into new ones.

        Args:
            room: for each part of an observation an array of its shape and dtype: `screen` and
                `variables`, or `obs` where the screen is all.
        """
        self._room = room

    def info(self) -> dict[str, float]:
        """Give the game variables by name (`info_keys`), as in the last step's info."""
        return dict(zip(self.info_keys, self._variables().tolist(), strict=True))

    def episode_statistics(self) -> dict[str, float]:
        """Give an ended episode's statistics by name (`episode_keys`)."""
        now = self._counters()
        return {
            "r": self._return,
            "l": self._length,
            "frames": self._tics,
            **{name: now[name] - self._first[name] for name in COUNTERS},
        }

    def render(self) -> NDArray[np.uint8] | None:
        """Give the screen as the engine drew it, (height, width, 3) uint8 RGB."""
        return self.palette[self._state.screen_buffer] if self.render_mode == "rgb_array" else None

    def player_died(self) -> bool:
        """Tell whether the player is dead, also after the episode's end."""
        return bool(self._game.is_player_dead())

    def kill(self) -> None:
        """Kill an engine that hangs, from another thread: who waits for it gets an EnvError."""
        if self._game is not None:
            kill_engine(self._scratch)

    def abandon(self) -> None:
        """Kill the engine and remove its files, from any thread, before the process ends."""
        if self._game is not None:
            abandon_engine(self._scratch)

    def close(self) -> None:
        """End the engine."""
        if self._game is not None:
            self._end()
            self._game = None
        self._done = True

    def describe_action(self, action: Any) -> str:
        """Name what an action presses, as in `move left + attack`."""
        return self._actions.describe(action)

    def _start(self) -> None:
        config = self.config
        settings = dict(self.game_spec.settings)
        if config.skill is not None:
            settings["doom_skill"] = config.skill
        spec = GameSpec(**{**vars(self.game_spec), "settings": settings})
        game, scratch = start_engine(
            spec,
            resolution=self._resolution,
            variables=self.info_keys,
            buffers=tuple(config.extra_channels),
        )
        self._game, self._scratch, self._frames_drawn = game, scratch, 0
        self._end = weakref.finalize(self, end_engine, game, scratch)

    def _settle_weapon(self) -> None:
        """Bring the swing of the weapon to rest, which the engine keeps from episode to episode.

        The engine's `P_BobWeapon` has it in a static variable that moves by one unit in each drawn
        frame, towards 0 while the player stands. What is left of it decides whether the weapon is
        drawn aside when it is fired, so a player stands still here until none is.
        """
        if self._swings and self._frames_drawn:
            self._game.new_episode()
            for _ in range(min(self._frames_drawn, _LARGEST_SWING)):
                self._game.make_action([0] * len(self.game_spec.buttons), 1)
        self._frames_drawn = 0

    def _died(self, error: Exception) -> EnvError:
        self.close()
        return EnvError(f"the Doom engine died: {error}")

    def _observation_space(self) -> spaces.Space[Any]:
        config = self.config
        shape = (config.height, config.width, len(self.channels))
        screen = spaces.Box(0, 255, shape, np.uint8)
        if not config.variables:
            return screen
        if not self.game_spec.variables:
            raise EnvError(f"{config.env} has no game variables to observe; leave out --variables")
        bounds = (len(self.game_spec.variables),)
        variables = spaces.Box(-_VARIABLE_BOUND, _VARIABLE_BOUND, bounds, np.float32)
        return spaces.Dict({"screen": screen, "variables": variables})

    def _look(self, first: bool = False) -> None:
        """Fetch the frame and the variables of this tic from the engine."""
        config = self.config
        state = self._game.get_state()
        self._frames_drawn += 1
        self._state = state
        room = self._room or self._new_room()
        stack = room[self._screen_part]
        if config.frame_stack == 1:
            self._decode(state, stack)
        else:
            channels = len(self.channels) // config.frame_stack  # of one frame
            if not first:
                stack[..., :-channels] = self._observed[self._screen_part][..., channels:]
            self._decode(state, stack[..., -channels:])
            if first:
                stack[..., :-channels] = np.tile(stack[..., -channels:], config.frame_stack - 1)
        if config.variables:
            scaled = self._variables()[: len(self._scales)].astype(np.float32) / self._scales
            np.clip(scaled, -_VARIABLE_BOUND, _VARIABLE_BOUND, out=room["variables"])
        self._observed = room

    def _variables(self) -> NDArray[np.float64]:
        variables: NDArray[np.float64] = self._state.game_variables - self._carried_over
        return variables

    def _new_room(self) -> dict[str, NDArray[Any]]:
        parts = observation_parts(self.observation_space)
        return {name: np.empty(part.shape, part.dtype) for name, part in parts.items()}

    def _decode(self, state: Any, frame: NDArray[np.uint8]) -> None:
        """Turn the engine's buffers into one frame, (H, W, C) uint8, written in place."""
        base = 1
        if self.config.observation == "palette":
            # Indices have no mean: the nearest one is taken.
            self._nearest(state.screen_buffer, frame, 0)
        else:
            # OpenCV looks up ten times as fast as NumPy does.
            screen = state.screen_buffer
            if self.config.observation == "gray":
                screen = cv2.LUT(screen, self._table)
            else:
                base, screen = 3, cv2.applyColorMap(screen, self._table)
            size = (self.config.width, self.config.height)
            area = cv2.resize(screen, size, interpolation=cv2.INTER_AREA)
            frame[..., :base] = area.reshape(*size[::-1], base)
        for channel, name in enumerate(self.config.extra_channels, start=base):
            self._nearest(getattr(state, f"{name}_buffer"), frame, channel)

    def _nearest(self, layer: NDArray[np.uint8], frame: NDArray[np.uint8], channel: int) -> None:
        """Shrink (height, width) of the engine's screen to a frame's channel, by nearest pixels."""
        if self._pixels is not None:
            frame[..., channel] = layer[self._pixels]
        else:
            size = (self.config.width, self.config.height)
            frame[..., channel] = cv2.resize(layer, size, interpolation=cv2.INTER_NEAREST)

    def _observation(self) -> Any:
        return self._observed if self.config.variables else self._observed[self._screen_part]

    def _counters(self) -> dict[str, float]:
        # Asked for one by one, because a finished episode has no state.
        return {name: self._game.get_game_variable(v) for name, v in _counter_variables()}


@functools.cache
def _counter_variables() -> tuple[tuple[str, Any], ...]:
    from vizdoom import GameVariable

    return tuple((name, GameVariable.__members__[v]) for name, v in COUNTERS.items())


def _scale(variable: str) -> float:
    if variable in _SCALES:
        return _SCALES[variable]
    by_prefix = (s for prefix, s in _SCALES_BY_PREFIX.items() if variable.startswith(prefix))
    return next(by_prefix, _OTHER_SCALE)
