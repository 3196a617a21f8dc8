"""Short clips of Doom, of several scenarios and players: the data of `see:video`.

Axes: B clips, T frames of a clip, one each env step, H, W, C the screen, K buttons.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from envs import DoomEnv, EnvConfig
from envs.doom.actions import ActionSet
from envs.doom.scenarios import SCENARIOS
from storage.policy_file import load_policy
from training.supervised.collected import (
    PARTS,
    SEEDS_APART,
    CollectedConfig,
    Kinds,
    Stops,
    check_arrays,
    check_going_on,
    collect_once,
    common_palette,
    never,
    quota,
    read_collected,
    stacked,
)
from training.supervised.players import (
    ActionSource,
    RandomPlayer,
    TrainedPlayer,
    generator_of,
    observed,
    played,
    policy_file,
    shown,
)
from training.supervised.task import Examples, Part

PLAYERS = ("random", "half-trained", "trained")
EVENTS = ("none", "hurt", "pick-up", "kill")
"""What may happen in an env step, the rarest last; a clip has the last of its env steps' events."""
_SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
_FIRST_SEED = 500_000_000  # Not those of scenes.
_MOST_OF_EPISODE = 6  # Clips, so that no episode dominates.
_LONGEST_GAP = 12  # Env steps between two clips of an episode, at most.
_FORMAT = 3  # In the second one, players of a scenario had different actions.


@dataclass(frozen=True, kw_only=True)
class ClipsConfig(CollectedConfig):
    """Which clips there are; the same options always make the same clips.

    Attributes:
        length: T.

    Raises:
        ValueError: If a value is out of range.
    """

    what: ClassVar[str] = "clips"
    lacking: ClassVar[str] = "there is no trained policy for"
    length: ClassVar[int] = 8  # 0.9 seconds.

    clips: int = 2_400
    """Number of clips, of all parts together."""
    scenarios: tuple[str, ...] = (
        "defend_the_center",
        "health_gathering",
        "predict_position",
        "take_cover",
        "deadly_corridor",
    )
    """Scenarios that are played; the project must have a trained policy for each."""

    def playable(self) -> Collection[str]:
        """Return the scenarios for which the project has a trained policy."""
        return [name for name in SCENARIOS if policy_file(name).exists()]

    @property
    def frames_of_example(self) -> int:
        """The observations in a clip."""
        return self.length

    @property
    def buttons(self) -> tuple[str, ...]:
        """The buttons of the scenarios, each once."""
        return tuple(dict.fromkeys(b for name in self.scenarios for b in SCENARIOS[name].buttons))

    def options(self) -> dict[str, Any]:
        """Return what the clips depend on, as JSON."""
        return {"format": _FORMAT, **super().options(), "length": self.length}


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips and what is to be predicted of them.

    Attributes:
        frames: (B, T, H, W, C) uint8, as agents observe them.
        buttons: (B, T, K) float32, the values of the buttons that were held in the env step that
            led to each frame: 1 if pressed, or a delta button's degrees or map units per tic.
        scenario: (B,) uint8, an index of the scenarios.
        player: (B,) uint8, an index of `PLAYERS`.
        event: (B,) uint8, an index of `EVENTS`.
        part: (B,) uint8, an index of `PARTS`.
        seed: (B,) int64, of the episode.
        palette: (256, 3) uint8 RGB.
    """

    frames: NDArray[np.uint8]
    buttons: NDArray[np.float32]
    scenario: NDArray[np.uint8]
    player: NDArray[np.uint8]
    event: NDArray[np.uint8]
    part: NDArray[np.uint8]
    seed: NDArray[np.int64]
    palette: NDArray[np.uint8]

    def examples(self, part: Part) -> Examples:
        """Return the clips of one part; episodes are numbered."""
        chosen = np.flatnonzero(self.part == PARTS.index(part))
        players = self.scenario.astype(np.int64) * len(PLAYERS) + self.player
        return {
            "image": torch.from_numpy(self.frames[chosen]),
            "buttons": torch.from_numpy(self.buttons[chosen]),
            **{
                name: torch.from_numpy(getattr(self, name)[chosen].astype(np.int64))
                for name in ("scenario", "player", "event")
            },
            "episode": torch.from_numpy((players * 2**31 + self.seed)[chosen]),
        }


def event_of(before: Mapping[str, float], after: Mapping[str, float]) -> int:
    """Return what happened to the player in an env step, an index of `EVENTS`.

    Health that rises is a pick-up also where the floor hurts all the time. Over a whole clip, such
    a rise would be lost among what the floor costs.

    Args:
        before: `kills`, `damage_taken`, `items` and `health`, before the env step.
        after: the same after it.
    """
    if after["kills"] > before["kills"]:
        return EVENTS.index("kill")
    if after["items"] > before["items"] or after["health"] > before["health"]:
        return EVENTS.index("pick-up")
    if after["damage_taken"] > before["damage_taken"]:
        return EVENTS.index("hurt")
    return EVENTS.index("none")


def load_clips(config: ClipsConfig) -> tuple[Clips, str]:
    """Return the clips of a configuration and their SHA-256; they are collected if necessary.

    Raises:
        DamagedError: If their file is damaged.
        FileError: If it holds the clips of another configuration.
        EnvError: If a scenario cannot be played.
    """
    collect_once(config, collect_clips)
    return read_collected(config.path, config, Clips, lambda clips: _check(clips, config))


def _check(clips: Clips, config: ClipsConfig) -> None:
    """Check shapes, types and ranges of clips from a file.

    Raises:
        ValueError: If they are not those of clips.
    """
    count = len(clips.frames)
    kinds: Kinds = {
        "frames": ((count, config.length, *config.spec.shape), np.uint8),
        "buttons": ((count, config.length, len(config.buttons)), np.float32),
        **dict.fromkeys(("scenario", "player", "event", "part"), ((count,), np.uint8)),
        "seed": ((count,), np.int64),
        "palette": ((256, 3), np.uint8),
    }
    classes = {
        "scenario": config.scenarios,
        "player": PLAYERS,
        "event": EVENTS,
        "part": PARTS,
    }
    check_arrays(clips, kinds, classes)
    if not np.isfinite(clips.buttons).all():
        raise ValueError("buttons are not finite")


def collect_clips(config: ClipsConfig, stops: Stops = never) -> Clips:
    """Play scenarios, and return clips; the same configuration gives the same clips.

    Each pair of a scenario and a player contributes the same number of clips to each part, as
    nearly as possible. The episodes of different parts have different seeds. There is one engine
    that shows the episodes of a scenario, and one in which its policy plays.

    Args:
        config: which clips.
        stops: returns whether to stop.

    Raises:
        EnvError: If a scenario cannot be played.
        FileError: If a policy of the project is damaged, or the scenarios have different palettes.
        StoppedError: If it was stopped.
    """
    palette = common_palette(config.scenarios)
    rows: list[dict[str, Any]] = []
    for scenario, name in enumerate(config.scenarios):
        how = played(name)
        with contextlib.closing(shown(how, config.seen)) as env:
            for kind, player in _players(how):
                number = scenario * len(PLAYERS) + kind
                with contextlib.closing(player):
                    for part, share in enumerate(_SHARES.values()):
                        total = len(config.scenarios) * len(PLAYERS)
                        wanted = quota(config.clips, share, number, total)
                        first = _FIRST_SEED + part * SEEDS_APART
                        about = {"scenario": scenario, "player": kind, "part": part}
                        found = _play(env, player, config, first, wanted, stops)
                        rows.extend({**about, **clip} for clip in found)
    return Clips(palette=palette, **stacked(rows, _ROW))


_ROW: dict[str, Any] = {
    "frames": np.uint8,
    "buttons": np.float32,
    "scenario": np.uint8,
    "player": np.uint8,
    "event": np.uint8,
    "part": np.uint8,
    "seed": np.int64,
}


def _players(how: EnvConfig) -> Iterator[tuple[int, ActionSource]]:
    """Yield the players of a scenario with their indices of `PLAYERS`."""
    policy = load_policy(policy_file(how.env)).policy
    yield 0, RandomPlayer(DoomEnv(how).action_space)
    yield 1, TrainedPlayer(policy, how, random_share=0.5)
    yield 2, TrainedPlayer(policy, how)


def _play(
    env: DoomEnv,
    player: ActionSource,
    config: ClipsConfig,
    first_seed: int,
    wanted: int,
    stops: Stops,
) -> Iterator[dict[str, Any]]:
    """Yield clips of episodes with consecutive seeds until there are enough.

    Args:
        env: shows the episodes.
        player: chooses the actions.
        config: which clips.
        first_seed: seed of the first episode.
        wanted: the number of clips.
        stops: returns whether to stop.

    Raises:
        StoppedError: If it was stopped.
    """
    left = wanted
    screen = observed(env)["obs"]
    actions = ActionSet(env.game_spec.buttons, env.config.actions, env.config.delta_bins)
    places = [config.buttons.index(button) for button in env.game_spec.buttons]
    for seed in range(first_seed, first_seed + SEEDS_APART):
        if not left:
            return
        rng = generator_of(seed, 2)
        wait, of_episode = int(rng.integers(_LONGEST_GAP)), 0
        frames: list[NDArray[np.uint8]] = []
        held: list[NDArray[np.float32]] = []
        event, before = 0, dict[str, float]()
        pressed = np.zeros(len(config.buttons), np.float32)
        env.reset(seed=seed)
        for action in player.play(seed):
            check_going_on(stops)
            if wait:
                wait -= 1
            else:
                now = {**env.episode_statistics(), "health": env.info()["HEALTH"]}
                event = max(event, event_of(before, now)) if frames else 0
                before = now
                frames.append(screen.copy())
                held.append(pressed.copy())
                if len(frames) == config.length:
                    yield {
                        "frames": np.stack(frames),
                        "buttons": np.stack(held),
                        "event": event,
                        "seed": seed,
                    }
                    left, of_episode = left - 1, of_episode + 1
                    frames, held, wait = [], [], int(rng.integers(_LONGEST_GAP))
            pressed[places] = actions.buttons(action)
            _, terminated, truncated = env.advance(action)
            if terminated or truncated or not left or of_episode == _MOST_OF_EPISODE:
                break
