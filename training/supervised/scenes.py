"""Doom's screens with what is on them: the data of `see:objects` and `see:segments`.

Scenes are collected from several scenarios, played at random and by the project's trained policies.
The engine's labels and depth buffers say what is on each screen, see `envs.doom.sight`.

Axes: B scenes, H, W, C the screen, K kinds of objects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs import DoomEnv, EnvConfig
from envs.doom.scenarios import SCENARIOS
from envs.doom.sight import CLASSES, KINDS
from storage.arrays import write_arrays
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
from training.supervised.task import Part

_SHARES = {"train": 0.75, "validation": 0.1, "test": 0.15}
_GAP = 8  # Env steps between two scenes, about a second, so that neighbours differ.
_MOST_OF_EPISODE = 20  # Scenes, so that no episode dominates.
_FORMAT = 2  # In the first one, random players had other actions than trained ones.


@dataclass(frozen=True, kw_only=True)
class ScenesConfig(CollectedConfig):
    """Which scenes there are; the same options always make the same scenes.

    Raises:
        ValueError: If a value is out of range.
    """

    what: ClassVar[str] = "scenes"

    scenes: int = 5_000
    """Number of scenes, of all parts together."""
    scenarios: tuple[str, ...] = (
        "basic",
        "defend_the_center",
        "defend_the_line",
        "health_gathering",
        "predict_position",
        "take_cover",
        "deadly_corridor",
        "deathmatch",
    )
    """Scenarios that are played, at random and, where the project has one, by a trained policy."""
    scenes_seed: int = 0
    """Seed of the episodes, and of what players do at random."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not 0 <= self.scenes_seed < 1_000:
            raise ValueError(f"scenes_seed must be between 0 and 999, got {self.scenes_seed}")

    def playable(self) -> Collection[str]:
        """Return all scenarios."""
        return SCENARIOS

    def options(self) -> dict[str, Any]:
        """Return what the scenes depend on, as JSON."""
        return {
            "format": _FORMAT,
            **super().options(),
            "scenes_seed": self.scenes_seed,
        }


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Screens and what is on them.

    Attributes:
        frames: (B, H, W, C) uint8, as agents observe them.
        classes: (B, H, W) uint8, the class of each pixel, an index of `CLASSES`.
        counts: (B, K) int16, how many objects of each kind are visible.
        bearing: (B,) float32, of the nearest visible monster in degrees, positive to the right; NaN
            without monsters.
        distance: (B,) float32, of that monster in map units; NaN without monsters.
        scenario: (B,) uint8, an index of the scenarios.
        trained: (B,) bool, whether a trained policy played, not a random player.
        part: (B,) uint8, an index of `PARTS`.
        seed: (B,) int64, of the episode.
        step: (B,) int32, the env step of the episode.
        palette: (256, 3) uint8 RGB.
    """

    frames: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    counts: NDArray[np.int16]
    bearing: NDArray[np.float32]
    distance: NDArray[np.float32]
    scenario: NDArray[np.uint8]
    trained: NDArray[np.bool_]
    part: NDArray[np.uint8]
    seed: NDArray[np.int64]
    step: NDArray[np.int32]
    palette: NDArray[np.uint8]

    @property
    def presence(self) -> NDArray[np.bool_]:
        """(B, K) bool, whether an object of each kind is visible."""
        return self.counts > 0

    @property
    def episode(self) -> NDArray[np.int64]:
        """(B,) int64, a number for each episode of each player in each scenario."""
        players = self.scenario.astype(np.int64) * 2 + self.trained
        return players * len(PARTS) * 1_000 * SEEDS_APART + self.seed


def load_scenes(config: ScenesConfig) -> tuple[Scenes, str]:
    """Return the scenes of a configuration and their SHA-256; they are collected if necessary.

    Raises:
        DamagedError: If their file is damaged.
        FileError: If it holds the scenes of another configuration.
        EnvError: If a scenario cannot be played.
    """
    collect_once(config, collect_scenes)
    return read_scenes(config.path, config)


def write_scenes(path: Path, scenes: Scenes, config: ScenesConfig) -> str:
    """Write scenes to a file, and return their SHA-256."""
    return write_arrays(path, vars(scenes), config.options())


def read_scenes(path: Path, config: ScenesConfig) -> tuple[Scenes, str]:
    """Read scenes and their SHA-256 from a file.

    Raises:
        DamagedError: If it is damaged, or holds no scenes.
        FileError: If it holds the scenes of another configuration.
    """
    return read_collected(path, config, Scenes, lambda scenes: _check(scenes, config))


def _check(scenes: Scenes, config: ScenesConfig) -> None:
    """Check shapes, types and ranges of scenes from a file.

    Raises:
        ValueError: If they are not those of scenes.
    """
    count, size = len(scenes.frames), (config.height, config.width)
    kinds: Kinds = {
        "frames": ((count, *config.spec.shape), np.uint8),
        "classes": ((count, *size), np.uint8),
        "counts": ((count, len(KINDS)), np.int16),
        "bearing": ((count,), np.float32),
        "distance": ((count,), np.float32),
        "scenario": ((count,), np.uint8),
        "trained": ((count,), np.bool_),
        "part": ((count,), np.uint8),
        "seed": ((count,), np.int64),
        "step": ((count,), np.int32),
        "palette": ((256, 3), np.uint8),
    }
    classes = {"classes": CLASSES, "part": PARTS, "scenario": config.scenarios}
    check_arrays(scenes, kinds, classes)
    for name in ("bearing", "distance"):
        if np.isinf(getattr(scenes, name)).any():
            raise ValueError(f"{name} is infinite")


def collect_scenes(config: ScenesConfig, stops: Stops = never) -> Scenes:
    """Play scenarios, and return what was seen; the same configuration gives the same scenes.

    Each pair of a scenario and a player contributes the same number of scenes to each part, as
    nearly as possible. The episodes of different parts have different seeds.

    Args:
        config: which scenes.
        stops: returns whether to stop.

    Raises:
        EnvError: If a scenario cannot be played.
        FileError: If a policy of the project is damaged, or the scenarios have different palettes.
        StoppedError: If it was stopped.
    """
    palette = common_palette(config.scenarios)
    kinds = {name: 1 + policy_file(name).exists() for name in config.scenarios}
    rows: list[dict[str, Any]] = []
    screens: set[bytes] = set()
    number = 0
    for scenario, name in enumerate(config.scenarios):
        how = played(name)
        with contextlib.closing(shown(how, config.seen, sight=True)) as env:
            for trained in range(kinds[name]):
                player = _trained(how) if trained else RandomPlayer(env.action_space)
                about = {"scenario": scenario, "trained": bool(trained)}
                with contextlib.closing(player):
                    for part, share in enumerate(_SHARES.values()):
                        wanted = quota(config.scenes, share, number, sum(kinds.values()))
                        first = (config.scenes_seed * len(PARTS) + part) * SEEDS_APART
                        found = _play(env, player, first, wanted, screens, stops)
                        rows.extend({**about, "part": part, **scene} for scene in found)
                number += 1
    return Scenes(palette=palette, **stacked(rows, _ROW))


def _trained(how: EnvConfig) -> TrainedPlayer:
    """Return the project's policy of a scenario as a player."""
    return TrainedPlayer(load_policy(policy_file(how.env)).policy, how)


_ROW: dict[str, Any] = {
    "frames": np.uint8,
    "classes": np.uint8,
    "counts": np.int16,
    "bearing": np.float32,
    "distance": np.float32,
    "scenario": np.uint8,
    "trained": np.bool_,
    "part": np.uint8,
    "seed": np.int64,
    "step": np.int32,
}


def _play(
    env: DoomEnv,
    player: ActionSource,
    first_seed: int,
    wanted: int,
    screens: set[bytes],
    stops: Stops,
) -> Iterator[dict[str, Any]]:
    """Yield scenes of episodes with consecutive seeds until there are enough.

    Args:
        env: shows the episodes.
        player: chooses the actions.
        first_seed: seed of the first episode.
        wanted: the number of scenes.
        screens: those that there are already, of all parts; these are left out, and new ones added.
        stops: returns whether to stop.

    Raises:
        StoppedError: If it was stopped.
    """
    left = wanted
    screen = observed(env)["obs"]
    height, width = screen.shape[:2]
    for seed in range(first_seed, first_seed + SEEDS_APART):
        if not left:
            return
        env.reset(seed=seed)
        next_scene, of_episode = int(generator_of(seed, 2).integers(_GAP)), 0
        for step, action in enumerate(player.play(seed)):
            check_going_on(stops)
            if step == next_scene:
                next_scene = step + _GAP
                if (content := screen.tobytes()) not in screens:
                    screens.add(content)
                    of_episode, left = of_episode + 1, left - 1
                    _, sight = env.look(height, width)
                    yield {
                        "frames": screen.copy(),
                        "classes": sight.classes,
                        "counts": sight.counts,
                        "bearing": sight.bearing,
                        "distance": sight.distance,
                        "seed": seed,
                        "step": step,
                    }
            _, terminated, truncated = env.advance(action)
            if terminated or truncated or not left or of_episode == _MOST_OF_EPISODE:
                break


def examples_of(scenes: Scenes, part: Part) -> dict[str, Tensor]:
    """Return the scenes of one part as tensors; the first axis of each is B.

    They are named `image` (uint8), `classes` (int64), `counts` and `presence` (float32), `bearing`,
    `distance` and `episode`.
    """
    chosen = np.flatnonzero(scenes.part == PARTS.index(part))
    return {
        "image": torch.from_numpy(scenes.frames[chosen]),
        "classes": torch.from_numpy(scenes.classes[chosen]),
        "counts": torch.from_numpy(scenes.counts[chosen].astype(np.float32)),
        "presence": torch.from_numpy(scenes.presence[chosen].astype(np.float32)),
        "bearing": torch.from_numpy(scenes.bearing[chosen]),
        "distance": torch.from_numpy(scenes.distance[chosen]),
        "episode": torch.from_numpy(scenes.episode[chosen]),
    }
