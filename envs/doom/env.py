"""Doom as a Gymnasium environment, with exact ends of episodes and real last frames.

Axes: H, W the observed screen; C its channels (the base channels, then the extra ones, repeated for
each stacked frame, oldest first); V observed game variables; L samples of a sound, K tokens of a
text, see `envs.doom.senses`.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from vizdoom import GameVariable

from envs.config import EnvConfig
from envs.doom.actions import ActionSet, chosen_buttons
from envs.doom.cfg import GameSpec, game_spec
from envs.doom.engine import (
    ENGINE_ERRORS,
    end_engine,
    kill_engine,
    smallest_resolution,
    start_engine,
)
from envs.doom.maps import MapConfig
from envs.doom.maps.level import Level
from envs.doom.maps.looks import colour_shift
from envs.doom.maps.source import WAD_NAME, MapSource
from envs.doom.senses import check_openal, sound_space, text_space, write_sound, write_text
from envs.doom.shaping import SHAPING
from envs.doom.sight import (
    DEPTH_KEYS,
    KIND_KEYS,
    Pose,
    Sight,
    depth_infos,
    kind_infos,
    look,
    shrunk,
)
from envs.doom.trial import check_playable
from envs.doom.variables import BOUND, scales
from envs.doom.wad import read_palette
from envs.errors import EnvError
from envs.spaces import observation_parts

FRAMES_PER_SECOND = 35  # Doom's tics per second
FRAME_SKIP = 4  # Default number of frames per env step, as in most of the literature.

# What the engine counts: reported as differences within the episode, because the engine carries
# some counters over from one episode to the next (a shot that hits while it restarts).
COUNTERS = {
    "kills": "KILLCOUNT",
    "items": "ITEMCOUNT",
    "secrets": "SECRETCOUNT",
    "hits": "HITCOUNT",
    "hits_taken": "HITS_TAKEN",
    "damage": "DAMAGECOUNT",
    "damage_taken": "DAMAGE_TAKEN",
}

# Reported in `info` by every Doom environment, whether its .cfg lists it or not.
_ALWAYS_REPORTED = ("HEALTH",)
# Reported if `enemy_in_view` is set; not a variable of the engine.
_ENEMY_IN_VIEW = "ENEMY_IN_VIEW"
_MONSTER = "Monster"  # the category of living monsters in the engine's labels

# The weapon's largest displacement: MAXBOB in the engine's p_user.cpp, one unit per drawn frame.
_LARGEST_SWING = 16
_FIELD_OF_VIEW = 90  # degrees; the engine's own
_POSITION_X, _POSITION_Y = GameVariable.POSITION_X, GameVariable.POSITION_Y
_START_TOLERANCE = 1.0  # map units: what a player moves in the tic before the first frame


class DoomEnv(gym.Env[Any, Any]):
    """A Doom scenario or map, simulated tic by tic and drawn once per env step.

    Observation space: a (H, W, C) uint8 Box, the screen. With `variables`, `sound` or
    `notifications`, it is a Dict of `screen` and these: a (V,) float32 Box, a (L, 2) float32 Box of
    the sound since the last env step, and a (K,) int32 Box of the words that appeared since then.
    The values of a `palette` screen are indices of colours, so wrappers must not resize or average
    them; those of `rgb` and `gray` screens they may. Action space: Discrete or MultiDiscrete, see
    `ActionSet`; `action_names` names the choices. Reward: the scenario's native reward over the env
    step, and with `shaping` what that adds.

    An episode is `terminated` by death or by the scenario's goal, and `truncated` when its time
    runs out; then the last observation is the real last frame. After death the engine draws no
    further frame, and the last observation is the last frame that it drew. `info` holds the game
    variables by name, and at the end of an episode `statistics`: return `r`, length `l` in env
    steps, `frames` (with all frames of the last action), and `COUNTERS`. The key `episode` is left
    to Gymnasium's RecordEpisodeStatistics.

    The engine starts at the first reset. The same seed and actions give the same episode, bit for
    bit, whatever the engine played before.

    Attributes:
        maps: where the maps come from, if they are generated.
        level: the map of this episode, if maps are generated.
        draws_targets: whether the buffers are drawn from which `depth_targets` and `kind_targets`
            are read; if not, these infos are -1. To be set before the first reset.

    Args:
        config: how the environment is observed and acted upon.
        render_mode: None or `rgb_array`.

    Raises:
        EnvError: If there is no such scenario or map, or its files cannot be read or played.
    """

    def __init__(self, config: EnvConfig, render_mode: str | None = None) -> None:
        spec = game_spec(config.env)
        if spec is None:
            raise EnvError(
                f"{config.env} is not a Doom environment; those are scenarios, Freedoom maps, and "
                ".cfg and .wad files"
            )
        check_playable(config.env)
        if config.sound:
            check_openal()
        self.config = config
        self.maps: MapSource | None = None
        if isinstance(config.map, MapConfig):
            self.maps = MapSource(config.env, config.map)
            spec = replace(spec, settings={**spec.settings, "render_hud": config.map.hud})
        # Only a player that can walk swings its weapon.
        moves = any(button.startswith("MOVE_") for button in spec.buttons)
        self._swings = moves and spec.settings.get("render_weapon", True)
        buttons = chosen_buttons(spec.buttons, config.buttons, config.env)
        spec = replace(spec, buttons=buttons)
        self.game_spec: GameSpec = spec
        self.frame_skip = config.frame_skip or FRAME_SKIP
        self.time_limit = config.time_limit or spec.time_limit
        self.palette: NDArray[np.uint8] = read_palette(spec.iwad, spec.wad)  # (256, 3) RGB
        # (256,) uint8, the index that is shown for each one that the engine draws; None: the same.
        self._shift = colour_shift(config.map, self.palette) if self.maps else None
        # (256, 1, 3) or (256, 1), OpenCV's lookup table from palette indices to RGB or gray.
        self._table: NDArray[Any] = np.ascontiguousarray(self.palette[:, None])
        if config.observation == "gray":
            self._table = cv2.cvtColor(self._table, cv2.COLOR_RGB2GRAY)
        base = {"palette": ("palette",), "gray": ("gray",), "rgb": ("red", "green", "blue")}
        frame = (*base[config.observation], *config.extra_channels)
        self.channels: tuple[str, ...] = frame * config.frame_stack
        # An attribute of the instance, not of the class, because it depends on the configuration.
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
        reported = [n for n in (*_ALWAYS_REPORTED, *COUNTERS.values()) if n not in spec.variables]
        # The engine's game variables in each state, the observed ones first.
        self._variable_names: tuple[str, ...] = (*spec.variables, *reported)
        self.info_keys = self._variable_names
        if config.enemy_in_view:
            self.info_keys = (*self.info_keys, _ENEMY_IN_VIEW)
        if config.depth_targets:
            self.info_keys = (*self.info_keys, *DEPTH_KEYS)
        if config.kind_targets:
            self.info_keys = (*self.info_keys, *KIND_KEYS)
        self.draws_targets = True
        self.episode_keys: tuple[str, ...] = ("r", "l", "frames", *COUNTERS)
        self._is_counter = np.isin(self._variable_names, list(COUNTERS.values()))
        self._scales = scales(spec.variables)
        self._resolution = smallest_resolution(config.width, config.height)
        # If the engine's screen is a multiple of the observed one: every nth row and mth column.
        ratios = self._resolution[1] / config.height, self._resolution[0] / config.width
        whole = all(ratio.is_integer() for ratio in ratios)
        self._pixels = tuple(slice(None, None, int(r)) for r in ratios) if whole else None
        only_screen = isinstance(self.observation_space, spaces.Box)
        self._screen_part = "obs" if only_screen else "screen"
        self._destination: Mapping[str, NDArray[Any]] | None = None
        self._observed: Mapping[str, NDArray[Any]] = {}
        self._game: Any = None
        self.level: Level | None = None
        self._done, self._return, self._untaken = True, 0.0, 0.0
        self._shaping = [SHAPING[name]() for name in config.shaping]
        self._swing = 0  # of the weapon, in units: at most this many

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: together with the actions, it determines the whole episode; by default it is drawn
                from the environment's generator.
            options: unused.

        Returns:
            The first observation, and the info with the episode's seed as `episode_seed`.

        Raises:
            EnvError: If the engine could not be started, or it died.
        """
        super().reset(seed=seed)
        if self._game is None:
            self._start()
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        try:
            if self._swing > self._waiting_tics:  # Too much for them: in an episode nobody sees.
                self._game.new_episode()
                self._stand(self._swing - self._waiting_tics)
            if self.maps:
                self.level = self.maps.put(self._scratch / WAD_NAME, seed)
            self._game.set_seed(seed % 2**32)
            self._game.new_episode()
            self._stand(self._waiting_tics)
            if self.maps:
                self._check_map()
            if (state := self._game.get_state()) is None:
                raise EnvError(f"{self.config.env}: an episode ends before its first frame")
            variables = state.game_variables
            self._carried_over = np.where(self._is_counter, variables, 0.0)
            self._observe(first=True)
            self._first = self._counters()
        except ENGINE_ERRORS as error:
            raise self._died(error) from error
        self._done, self._tics, self._return, self._length = False, 0, 0.0, 0
        for shaping in self._shaping:
            shaping.start(self)
        return self._observation(), {**self.info(), "episode_seed": seed}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold an action for `frame_skip` tics, or until the episode ends.

        Args:
            action: an element of the action space.

        Returns:
            observation, reward, terminated, truncated, info.
        """
        reward, terminated, truncated = self.advance(action)
        info: dict[str, Any] = dict(self.info())
        if self._done:
            info["statistics"] = self.episode_statistics()
        return self._observation(), reward, terminated, truncated, info

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        """Step like `step`, but leave the observation in the arrays given to `write_to`.

        Returns:
            reward, terminated, truncated.

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
            self._untaken += reward
            self._length += 1
            terminated: bool = game.is_episode_finished()
            truncated = not terminated and self._tics == self.time_limit
            if not terminated:
                self._observe()
            reward += sum(shaping.reward(self) for shaping in self._shaping)
        except ENGINE_ERRORS as error:
            raise self._died(error) from error
        self._done = terminated or truncated
        return reward, terminated, truncated

    def write_to(self, destination: Mapping[str, NDArray[Any]]) -> None:
        """From now on, write every observation into these arrays instead of into new ones.

        Args:
            destination: for each part of an observation, an array of its shape and dtype: `screen`
                and others, or `obs` if only the screen is observed.
        """
        self._destination = destination

    def info(self) -> dict[str, float]:
        """Return the current numeric infos by name (`info_keys`), as in the last step's info."""
        info = dict(zip(self._variable_names, self._variables().tolist(), strict=True))
        if self.config.enemy_in_view:
            labels = self._state.labels
            info[_ENEMY_IN_VIEW] = float(any(la.object_category == _MONSTER for la in labels))
        if self.config.depth_targets:
            info |= depth_infos(self._state.depth_buffer if self.draws_targets else None)
        if self.config.kind_targets:
            buffer = self._state.labels_buffer if self.draws_targets else None
            info |= kind_infos(self._state.labels or (), buffer)
        return info

    def episode_statistics(self) -> dict[str, float]:
        """Return the episode's statistics so far by name (`episode_keys`)."""
        now = self._counters()
        return {
            "r": self._return,
            "l": self._length,
            "frames": self._tics,
            **{name: now[name] - self._first[name] for name in COUNTERS},
        }

    def take_reward(self) -> float:
        """Return the sum of the native rewards since the last call, also across episodes."""
        taken, self._untaken = self._untaken, 0.0
        return taken

    def render(self) -> NDArray[np.uint8] | None:
        """Return the screen as the engine drew it, (height, width, 3) uint8 RGB."""
        shown = self.render_mode == "rgb_array"
        return self.palette[self._shown(self._state.screen_buffer)] if shown else None

    def look(self, height: int, width: int) -> tuple[NDArray[np.uint8], Sight]:
        """Return the screen and what is visible on it; needs `depth_targets` and `kind_targets`.

        Args:
            height: of the screen in pixels.
            width: of the screen in pixels.

        Returns:
            The (height, width) uint8 palette indices, and the sight at the same size.
        """
        state = self._state
        layers = (self._shown(state.screen_buffer), state.labels_buffer, state.depth_buffer)
        screen, labels, depth = (shrunk(layer, height, width) for layer in layers)
        return screen, look(state.labels, labels, depth, self.pose())

    def pose(self) -> Pose:
        """Return where the player is, and where it looks."""
        variable = self._game.get_game_variable
        x, y, angle = (variable(GameVariable.__members__[name]) for name in Pose.VARIABLES)
        return Pose(x=x, y=y, angle=angle)

    def labels(self) -> Sequence[Any]:
        """Return the engine's labels of the objects in view; needs `kind_targets`."""
        return self._state.labels or ()

    def player_died(self) -> bool:
        """Return whether the player is dead, also after the episode's end."""
        return bool(self._game.is_player_dead())

    def kill(self) -> None:
        """Kill an engine that hangs; the method that waits for it in another thread then raises."""
        if self._game is not None:
            kill_engine(self._scratch)

    def close(self) -> None:
        """End the engine."""
        if self._game is not None:
            self._end()
            self._game = None
        self._done = True

    def describe_action(self, action: Any) -> str:
        """Return what an action presses, such as `move left + attack`."""
        return self._actions.describe(action)

    def _start(self) -> None:
        config = self.config
        settings = dict(self.game_spec.settings)
        if config.skill is not None:
            settings["doom_skill"] = config.skill
        buffers: set[str] = set(config.extra_channels)
        if config.enemy_in_view or (config.kind_targets and self.draws_targets):
            buffers.add("labels")
        if config.depth_targets and self.draws_targets:
            buffers.add("depth")
        if config.notifications:
            buffers.add("notifications")
        if config.sound:
            buffers.add("audio")
        game, scratch = start_engine(
            replace(self.game_spec, settings=settings),
            resolution=self._resolution,
            variables=self._variable_names,
            buffers=tuple(sorted(buffers)),
            recent_frames=self.frame_skip,
            maps=self.maps,
        )
        self._waiting_tics = 0
        # An automap changes with each frame that is drawn.
        if self._swings and "automap" not in config.extra_channels:
            # Standing still is our part, because the engine would not draw these tics.
            self._waiting_tics = game.get_episode_start_time() - 1
            game.set_episode_start_time(1)
        self._game, self._scratch, self._swing = game, scratch, 0
        self._end = weakref.finalize(self, end_engine, game, scratch)

    def _check_map(self) -> None:
        """Check that the engine plays the map that was written for it, and set the field of view.

        Raises:
            EnvError: If the player starts elsewhere.
        """
        assert self.level is not None
        start = self.level.position(self.level.start)
        found = [self._game.get_game_variable(v) for v in (_POSITION_X, _POSITION_Y)]
        if max(abs(a - b) for a, b in zip(start, found, strict=True)) > _START_TOLERANCE:
            raise EnvError(f"the engine does not play the map: the player is at {found}")
        if self.config.map.field_of_view != _FIELD_OF_VIEW:
            self._game.send_game_command(f"fov {self.config.map.field_of_view}")

    def _stand(self, tics: int) -> None:
        """Stand still for some tics, in which the weapon comes to rest.

        Its swing, which the engine's `P_BobWeapon` keeps in a static variable from episode to
        episode, affects where it is drawn when it is fired. While the player stands, it moves by
        one unit towards 0 with each frame that is drawn: the last frame of each call.
        """
        still = [0] * len(self.game_spec.buttons)
        if undrawn := max(0, tics - self._swing):
            self._game.make_action(still, undrawn)
        for _ in range(tics - undrawn):
            self._game.make_action(still, 1)
        self._swing = max(0, self._swing - tics)

    def _died(self, error: Exception) -> EnvError:
        self.close()
        return EnvError(f"the Doom engine died: {error}")

    def _observation_space(self) -> spaces.Space[Any]:
        config = self.config
        shape = (config.height, config.width, len(self.channels))
        parts: dict[str, spaces.Space[Any]] = {"screen": spaces.Box(0, 255, shape, np.uint8)}
        if config.variables:
            if not self.game_spec.variables:
                raise EnvError(
                    f"{config.env} has no game variables to observe; leave out --variables"
                )
            bounds = (len(self.game_spec.variables),)
            parts["variables"] = spaces.Box(-BOUND, BOUND, bounds, np.float32)
        if config.sound:
            parts["sound"] = sound_space(self.frame_skip)
        if config.notifications:
            parts["notifications"] = text_space()
        return spaces.Dict(parts) if len(parts) > 1 else parts["screen"]

    def _observe(self, first: bool = False) -> None:
        """Read the frame and the variables of this tic from the engine."""
        config = self.config
        state = self._game.get_state()
        if self._swings:
            self._swing = min(self._swing + 1, _LARGEST_SWING)
        self._state = state
        arrays = self._destination or self._new_arrays()
        stack = arrays[self._screen_part]
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
            np.clip(scaled, -BOUND, BOUND, out=arrays["variables"])
        if config.sound:
            write_sound(state.audio_buffer, arrays["sound"])
        if config.notifications:
            write_text(state.notifications_buffer, arrays["notifications"])
        self._observed = arrays

    def _variables(self) -> NDArray[np.float64]:
        variables: NDArray[np.float64] = self._state.game_variables - self._carried_over
        return variables

    def _new_arrays(self) -> dict[str, NDArray[Any]]:
        parts = observation_parts(self.observation_space)
        return {name: np.empty(part.shape, part.dtype) for name, part in parts.items()}

    def _decode(self, state: Any, frame: NDArray[np.uint8]) -> None:
        """Write the engine's buffers into one frame, (H, W, C) uint8."""
        base = 1
        screen: Any = self._shown(state.screen_buffer)
        if self.config.observation == "palette":
            # Indices cannot be averaged, so the screen is resized by nearest pixels.
            self._resize_nearest(screen, frame, 0)
        else:
            # OpenCV's lookup is ten times as fast as NumPy's.
            if self.config.observation == "gray":
                screen = cv2.LUT(screen, self._table)
            else:
                base, screen = 3, cv2.applyColorMap(screen, self._table)
            size = (self.config.width, self.config.height)
            area = cv2.resize(screen, size, interpolation=cv2.INTER_AREA)
            frame[..., :base] = area.reshape(*size[::-1], base)
        for channel, name in enumerate(self.config.extra_channels, start=base):
            self._resize_nearest(getattr(state, f"{name}_buffer"), frame, channel)

    def _shown(self, screen: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the palette indices of a screen with the shift of colours that is configured."""
        return screen if self._shift is None else np.asarray(cv2.LUT(screen, self._shift))

    def _resize_nearest(
        self, layer: NDArray[np.uint8], frame: NDArray[np.uint8], channel: int
    ) -> None:
        """Resize one of the engine's buffers by nearest pixels, and write it into a channel."""
        if self._pixels is not None:
            frame[..., channel] = layer[self._pixels]
        else:
            size = (self.config.width, self.config.height)
            frame[..., channel] = cv2.resize(layer, size, interpolation=cv2.INTER_NEAREST)

    def _observation(self) -> Any:
        return self._observed.get("obs", self._observed)

    def _counters(self) -> dict[str, float]:
        # Read one by one, because a finished episode has no state.
        return {name: self._game.get_game_variable(v) for name, v in _counter_variables()}


@functools.cache
def _counter_variables() -> tuple[tuple[str, Any], ...]:
    return tuple((name, GameVariable.__members__[v]) for name, v in COUNTERS.items())
