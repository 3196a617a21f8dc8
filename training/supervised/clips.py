"""Short clips of Doom, of several scenarios and players: the data of `see:video`.

Axes: B clips, T frames of a clip, one each env step, H, W the screen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from envs import DoomEnv
from envs.doom.scenarios import SCENARIOS
from storage.arrays import write_arrays
from training.supervised.collected import (
    PARTS,
    SEEDS_APART,
    CollectedConfig,
    Kinds,
    check_arrays,
    quota,
    read_collected,
)
from training.supervised.players import (
    HalfTrainedPlayer,
    RandomPlayer,
    ScreenPlayer,
    TrainedPlayer,
    generator_of,
    observed,
    policy_file,
    prepare,
)
from training.supervised.task import Examples, Part

PLAYERS = ("random", "half-trained", "trained")
EVENTS = ("none", "hurt", "pick-up", "kill")
"""What may happen in an env step, the rarest last; a clip has the last of its env steps' events."""
LENGTH = 8
"""T, frames of a clip: 0.9 seconds."""
_SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
_FIRST_SEED = 500_000_000  # Not those of scenes.
_MOST_OF_EPISODE = 6  # Clips, so that no episode dominates.
_LONGEST_GAP = 12  # Env steps between two clips of an episode, at most.
_FORMAT = 2  # The first one gave a clip one event by the change from its first to its last frame.


@dataclass(frozen=True, kw_only=True)
class ClipsConfig(CollectedConfig):
    """Which clips there are; the same options always make the same clips.

    Raises:
        ValueError: If a value is out of range.
    """

    what: ClassVar[str] = "clips"
    lacking: ClassVar[str] = "there is no trained policy for"

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

    def options(self) -> dict[str, Any]:
        """Return what the clips depend on, as JSON."""
        return {
            "format": _FORMAT,
            "clips": self.clips,
            "scenarios": list(self.scenarios),
            "height": self.height,
            "width": self.width,
        }


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips and what is to be predicted of them.

    Attributes:
        frames: (B, T, H, W, 1) uint8, palette indices.
        scenario: (B,) uint8, an index of the scenarios.
        player: (B,) uint8, an index of `PLAYERS`.
        event: (B,) uint8, an index of `EVENTS`.
        part: (B,) uint8, an index of `PARTS`.
        seed: (B,) int64, of the episode.
        palette: (256, 3) uint8 RGB.
    """

    frames: NDArray[np.uint8]
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
    if not config.path.exists():
        write_arrays(config.path, vars(collect_clips(config)), config.options())
    return read_collected(config.path, config, Clips, lambda clips: _check(clips, config))


def _check(clips: Clips, config: ClipsConfig) -> None:
    """Check shapes, types and ranges of clips from a file.

    Raises:
        ValueError: If they are not those of clips.
    """
    count = len(clips.frames)
    kinds: Kinds = {
        "frames": ((count, LENGTH, config.height, config.width, 1), np.uint8),
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


def collect_clips(config: ClipsConfig) -> Clips:
    """Play scenarios, and return clips; the same configuration gives the same clips.

    Each pair of a scenario and a player contributes the same number of clips to each part, as
    nearly as possible. The episodes of different parts have different seeds.

    Raises:
        EnvError: If a scenario cannot be played.
        FileError: If a policy of the project is damaged.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("scenario", "player", "event")}
    columns |= {name: [] for name in ("part", "seed", "frames")}
    palette: NDArray[np.uint8] = np.zeros((256, 3), np.uint8)
    pairs = len(config.scenarios) * len(PLAYERS)
    for number in range(pairs):
        scenario, player = divmod(number, len(PLAYERS))
        policy, env = prepare(
            config.scenarios[scenario], config.height, config.width, trained=player > 0
        )
        palette = env.palette

        def new_player(
            rng: np.random.Generator, env: DoomEnv = env, policy: Any = policy, player: int = player
        ) -> ScreenPlayer:
            if policy is None:
                return RandomPlayer(env, rng)
            kind = TrainedPlayer if PLAYERS[player] == "trained" else HalfTrainedPlayer
            return kind(env, rng, policy)

        try:
            for part, name in enumerate(PARTS):
                wanted = quota(config.clips, _SHARES[name], number, pairs)
                first = _FIRST_SEED + part * SEEDS_APART
                for seed, event, frames in _play(env, new_player, config, first, wanted):
                    row = (scenario, player, event, part, seed, frames)
                    for column, value in zip(columns.values(), row, strict=True):
                        column.append(value)
        finally:
            env.close()
    return Clips(
        frames=np.stack(columns["frames"]),
        seed=np.array(columns["seed"], np.int64),
        palette=palette,
        **{n: np.array(columns[n], np.uint8) for n in ("scenario", "player", "event", "part")},
    )


def _play(
    env: DoomEnv, new_player: Any, config: ClipsConfig, first_seed: int, wanted: int
) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Yield clips of episodes with consecutive seeds until there are enough.

    Args:
        env: the environment.
        new_player: returns a player for an episode's random generator.
        config: the size of the screen.
        first_seed: seed of the first episode.
        wanted: the number of clips.

    Yields:
        The seed of the episode, the event (an index of `EVENTS`), and (T, H, W, 1) uint8 frames.
    """
    left = wanted
    obs = observed(env)
    for seed in range(first_seed, first_seed + SEEDS_APART):
        if not left:
            return
        rng = generator_of(seed)
        player = new_player(rng)
        wait, of_episode, done = int(rng.integers(_LONGEST_GAP)), 0, False
        frames: list[NDArray[np.uint8]] = []
        event, before = 0, dict[str, float]()
        env.reset(seed=seed)
        while not done and left and of_episode < _MOST_OF_EPISODE:
            if wait:
                wait -= 1
            else:
                screen, _ = env.look(config.height, config.width)
                now = {**env.episode_statistics(), "health": env.info()["HEALTH"]}
                event = max(event, event_of(before, now)) if frames else 0
                before = now
                frames.append(screen[..., None])
                if len(frames) == LENGTH:
                    yield seed, event, np.stack(frames)
                    left, of_episode = left - 1, of_episode + 1
                    frames, wait = [], int(rng.integers(_LONGEST_GAP))
            _, terminated, truncated = env.advance(player.act(obs))
            done = terminated or truncated
