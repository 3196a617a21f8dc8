"""How an environment looks to an agent: one frozen dataclass, which can be read from JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from envs.own import check_wrappers, parse_kwargs

Observation = Literal["palette", "rgb", "gray"]
ExtraChannel = Literal["depth", "labels", "automap"]
Actions = Literal["auto", "combinations", "groups"]
Opponent = Literal["self", "bot", "random", "still"]

_MAX_PIXELS = 2**21  # of an observation, all frames together: a screen of 1600x1200
_MAX_DELTA_BINS = 1001
_MAX_NOOPS = 10_000

ConfigT = TypeVar("ConfigT", bound="EnvConfig")


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """How an environment is observed and acted upon.

    Raises:
        ValueError: If a value is out of range.
    """

    env: str = "basic"
    """A scenario, a Gymnasium id, `freedoom2:MAP01`, `maps:KIND`, `players:KIND`, a .cfg, .wad."""
    frame_skip: int | None = None
    """Frames per env step, with the action held. None: 4 in Doom and Atari, 1 elsewhere."""
    observation: Observation = "palette"
    """How pixels are sent. palette: Doom's colour indices, lossless in one byte per pixel."""
    height: int = 72
    """Height of the observed screen in pixels."""
    width: int = 128
    """Width of the observed screen in pixels."""
    frame_stack: int = 1
    """How many of the last screens are observed together, oldest first along the channels."""
    max_pool: bool = False
    """Not in Doom: observe the pixel-wise maximum of the last two frames of an env step."""
    noop_max: int = 0
    """Not in Doom: start an episode with 1 to this many frames of action 0, drawn by its seed."""
    fire_reset: bool = False
    """Atari only: start every life with FIRE, if the game has it, and with a new frame stack."""
    terminal_on_life_loss: bool = False
    """Atari only: in training, losing a life ends the episode. Scores count whole games."""
    extra_channels: tuple[ExtraChannel, ...] = ()
    """Doom only: further buffers as channels of the screen."""
    variables: bool = False
    """Doom only: observe the scenario's game variables (health, ammunition) beside the screen."""
    sound: bool = False
    """Doom only: observe what is heard in stereo beside the screen; needs OpenAL."""
    notifications: bool = False
    """Doom only: observe the words of the messages on the screen beside it."""
    enemy_in_view: bool = False
    """Doom only: report as ENEMY_IN_VIEW in `info` whether a monster is visible; takes time."""
    depth_targets: bool = False
    """Doom only: report in `info` how far away each of 4 x 16 cells is, as a class; takes time."""
    kind_targets: bool = False
    """Doom only: report in `info` which kinds of objects are visible in which of 16 strips of the
    screen; takes time."""
    targets_every: int = 8
    """Doom only: one of this many environments reports these targets, the others -1."""
    buttons: tuple[str, ...] = ()
    """Doom only: which of the scenario's buttons the agent has, such as ATTACK; by default all."""
    actions: Actions = "auto"
    """Doom only: button combinations, or one choice per group. auto: combinations if at most 24."""
    delta_bins: int = 5
    """Doom only: how many values each continuous (delta) button is binned to; odd."""
    skill: int | None = None
    """Doom only: difficulty, 1 to 5. None: the scenario's own, which is part of the task."""
    time_limit: int | None = None
    """Frames (tics in Doom, steps elsewhere) until truncation. None: the environment's limit."""
    opponent: Opponent = "self"
    """Matches only: who the other players are. self: policies; scores then play against bots."""
    env_kwargs: tuple[str, ...] = ()
    """Not in Doom: arguments with which the environment is made, as KEY=VALUE KEY=VALUE ..."""
    shaping: tuple[str, ...] = ()
    """Doom only: rewards that are added for learning, of: new_places, damage."""
    wrappers: tuple[str, ...] = ()
    """Wrappers around the environment, as MODULE:NAME ..., the first innermost, for learning."""
    native_reward: bool = False
    """Return the reward of the environment itself, not that of the wrappers."""
    map: Any = None
    """Generated maps only: their options, see `envs.doom.maps`; a dictionary is converted."""
    files: tuple[str, ...] = ()
    """Not an option: the content of the user's own files, see `envs.moved.own_files`."""

    def __post_init__(self) -> None:
        """Check ranges, and make tuples of lists, which are what files hold."""
        for name in ("extra_channels", "buttons", "env_kwargs", "shaping", "wrappers", "files"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        lowest = {"height": 1, "width": 1, "frame_stack": 1, "delta_bins": 3, "targets_every": 1}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.height * self.width * self.frame_stack > _MAX_PIXELS:
            raise ValueError(
                f"{self.frame_stack} frames of {self.height}x{self.width} are too large; "
                f"at most {_MAX_PIXELS:,} pixels are possible"
            )
        if self.delta_bins > _MAX_DELTA_BINS:
            raise ValueError(f"delta_bins must be at most {_MAX_DELTA_BINS}, got {self.delta_bins}")
        if self.delta_bins % 2 == 0:
            raise ValueError(
                f"delta_bins must be odd, so that 0 is one of the values; got {self.delta_bins}"
            )
        for name in ("frame_skip", "time_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.noop_max <= _MAX_NOOPS:
            raise ValueError(f"noop_max must be between 0 and {_MAX_NOOPS:,}, got {self.noop_max}")
        if self.skill is not None and not 1 <= self.skill <= 5:
            raise ValueError(f"skill must be between 1 and 5, got {self.skill}")
        for name in ("extra_channels", "buttons", "shaping"):
            listed = getattr(self, name)
            if len(set(listed)) != len(listed):
                raise ValueError(f"{name} lists one twice: {' '.join(listed)}")
        object.__setattr__(
            self, "buttons", tuple(sorted(self.buttons))
        )  # Their order is no choice.
        # Not imported above, because Doom's environment imports this module.
        from envs.doom.maps import map_options
        from envs.doom.shaping import check_shaping

        check_shaping(self.shaping)
        object.__setattr__(self, "map", map_options(self.env, self.map))
        parse_kwargs(self.env_kwargs)
        check_wrappers(self.wrappers)

    def whole_games(self: ConfigT) -> ConfigT:
        """Return this configuration for evaluation.

        Losing a life does not end an episode, rewards are native, and the other players of a match
        are the engine's bots, or in a team act at random.
        """
        # They import this module.
        from envs.doom.players import players_kind
        from envs.registry import is_imported

        opponent, match = self.opponent, players_kind(self.env)
        if match is not None:  # Whatever the training's was: a yardstick that does not change.
            opponent = "random" if match.is_team else "bot"
        return replace(
            self,
            terminal_on_life_loss=False,
            shaping=(),
            native_reward=bool(self.wrappers) or is_imported(self.env),
            opponent=opponent,
        )

    def without_targets(self: ConfigT) -> ConfigT:
        """Return this configuration without what only objectives need; what is played is equal."""
        every = type(self).targets_every
        return replace(self, depth_targets=False, kind_targets=False, targets_every=every)
