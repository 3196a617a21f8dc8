"""Short clips of Doom, of several scenarios and players: the data of `see:video`.

Axes: B clips, T frames of a clip, one each env step, H, W, C the screen, K buttons.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from envs import DoomEnv, EnvConfig
from envs.doom.actions import ActionSet
from envs.doom.scenarios import SCENARIOS
from storage.files import FileError
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
    Played,
    RandomPlayer,
    TrainedPlayer,
    episodes_of,
    generator_of,
    observed,
    played,
    policy_file,
    shown,
)
from training.supervised.recordings import Recordings, recordings_of
from training.supervised.task import Examples, Part

PLAYERS = ("random", "half-trained", "trained")
EVENTS = ("none", "hurt", "pick-up", "kill")
"""What may happen in an env step, the rarest last; a clip has the last of its env steps' events."""
_SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
_FIRST_SEED = 500_000_000  # Not those of scenes.
_MOST_OF_EPISODE = 6  # Clips, so that no episode dominates.
_MOST_WITHOUT = 100  # Episodes in a row without a clip, after which nothing more is expected.
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
    """Scenarios that are played; the project must have a trained policy for each, or --runs."""
    runs: tuple[Path, ...] = ()
    """Run folders whose recorded episodes are shown, instead of those of the project's policies."""

    def playable(self) -> Collection[str]:
        """Return the scenarios for which the project has a trained policy, or all with runs."""
        if self.runs:
            return SCENARIOS
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
        options = {"format": _FORMAT, **super().options(), "length": self.length}
        return {**options, "runs": [str(run.resolve()) for run in self.runs]}


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
    nearly as possible, if there are enough recorded episodes. The episodes of different parts have
    different seeds. One engine shows all episodes of a scenario.

    Args:
        config: which clips.
        stops: returns whether to stop.

    Raises:
        EnvError: If a scenario cannot be played.
        FileError: If a policy or a recording is damaged, there are too few recordings, the episodes
            are too short, or the scenarios have different palettes.
        StoppedError: If it was stopped.
    """
    palette = common_palette(config.scenarios)
    recordings = recordings_of(config.runs, config.scenarios) if config.runs else {}
    pairs = len(config.scenarios) * len(PLAYERS)
    rows: list[dict[str, Any]] = []
    for scenario, name in enumerate(config.scenarios):
        how = recordings[name].how if recordings else played(name)
        with contextlib.ExitStack() as stack:
            env = stack.enter_context(contextlib.closing(shown(how, config.seen)))
            for player, episodes in enumerate(_players(how, recordings.get(name), stack)):
                for part, share in enumerate(_SHARES.values()):
                    wanted = quota(config.clips, share, scenario * len(PLAYERS) + player, pairs)
                    about = {"scenario": scenario, "player": player, "part": part}
                    found = _play(env, episodes(part), config, wanted, stops)
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


def _players(
    how: EnvConfig, recordings: Recordings | None, stack: contextlib.ExitStack
) -> list[Callable[[int], Iterator[Played]]]:
    """Return functions that return the episodes of a part, one for each of `PLAYERS`.

    Args:
        how: how the scenario is played.
        recordings: its recorded episodes. None: the project's policy plays.
        stack: closes the players.
    """

    def playing(player: ActionSource) -> Callable[[int], Iterator[Played]]:
        stack.enter_context(contextlib.closing(player))
        return lambda part: episodes_of(player, _FIRST_SEED + part * SEEDS_APART)

    others: list[Callable[[int], Iterator[Played]]]
    if recordings is not None:
        shares = tuple(_SHARES.values())
        others = [partial(recordings.play, kind, shares=shares) for kind in PLAYERS[1:]]
    else:
        policy = load_policy(policy_file(how.env)).policy
        others = [playing(TrainedPlayer(policy, how, share)) for share in (0.5, 0.0)]
    return [playing(RandomPlayer(DoomEnv(how).action_space)), *others]


def _play(
    env: DoomEnv, episodes: Iterator[Played], config: ClipsConfig, wanted: int, stops: Stops
) -> Iterator[dict[str, Any]]:
    """Yield clips of episodes until there are enough.

    Args:
        env: shows the episodes.
        episodes: the episodes.
        config: which clips.
        wanted: the number of clips.
        stops: returns whether to stop.

    Raises:
        DivergedError: If a recorded episode is not what was recorded.
        FileError: If the episodes are too short.
        StoppedError: If it was stopped.
    """
    left, without = wanted, 0
    while left and (episode := next(episodes, None)):
        found = 0
        for clip in itertools.islice(
            _cut(env, episode, config, stops), min(left, _MOST_OF_EPISODE)
        ):
            yield clip
            found += 1
        left, without = left - found, 0 if found else without + 1
        if without == _MOST_WITHOUT:
            raise FileError(
                f"episodes of {env.config.env} are too short for clips of {config.length} frames; "
                "choose other --scenarios"
            )


def _cut(
    env: DoomEnv, episode: Played, config: ClipsConfig, stops: Stops
) -> Iterator[dict[str, Any]]:
    """Yield clips of one episode, with gaps of random lengths between them."""
    screen = observed(env)["obs"]
    choices = ActionSet(env.game_spec.buttons, env.config.actions, env.config.delta_bins)
    places = [config.buttons.index(button) for button in env.game_spec.buttons]
    pressed = np.zeros(len(config.buttons), np.float32)
    rng = generator_of(episode.seed, 2)
    wait = int(rng.integers(_LONGEST_GAP))
    frames: list[NDArray[np.uint8]] = []
    held: list[NDArray[np.float32]] = []
    event, before = 0, dict[str, float]()
    env.reset(seed=episode.seed)
    for step, action in enumerate(episode.actions):
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
                clip = {"frames": np.stack(frames), "buttons": np.stack(held)}
                yield {**clip, "event": event, "seed": episode.seed}
                frames, held, wait = [], [], int(rng.integers(_LONGEST_GAP))
        pressed[places] = choices.buttons(action)
        reward, terminated, truncated = env.advance(action)
        episode.check(step, reward)
        if terminated or truncated:
            return
