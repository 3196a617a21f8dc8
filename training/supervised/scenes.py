"""Doom's screens with what is on them: the data of `see:objects` and `see:segments`.

Scenes are collected from several scenarios, played at random and by the project's trained policies.
The engine's labels and depth buffers say what is on each screen, see `envs.doom.sight`.

Axes: B scenes, H, W the screen, K kinds of objects.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.policy import Policy
from envs import DoomEnv
from envs.doom.scenarios import SCENARIOS
from envs.doom.sight import CLASSES, KINDS
from evaluation.printing import print_line
from storage.arrays import write_arrays
from storage.files import FileError
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
    RandomPlayer,
    TrainedPlayer,
    generator_of,
    observed,
    policy_file,
    prepare,
)
from training.supervised.task import Part

_SHARES = {"train": 0.75, "validation": 0.1, "test": 0.15}
_GAP = 8  # Env steps between two scenes, about a second, so that neighbours differ.
_MOST_OF_EPISODE = 20  # Scenes, so that no episode dominates.
_FORMAT = 1


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
            "scenes": self.scenes,
            "scenarios": list(self.scenarios),
            "height": self.height,
            "width": self.width,
            "scenes_seed": self.scenes_seed,
        }


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Screens and what is on them.

    Attributes:
        frames: (B, H, W, 1) uint8, palette indices.
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
    if not config.path.exists():
        print_line(
            f"collecting {config.scenes:,} scenes of Doom into {config.path}, which takes minutes",
            file=sys.stderr,
        )
        write_scenes(config.path, collect_scenes(config), config)
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
        "frames": ((count, *size, 1), np.uint8),
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


def collect_scenes(config: ScenesConfig) -> Scenes:
    """Play scenarios, and return what was seen; the same configuration gives the same scenes.

    Each pair of a scenario and a player contributes the same number of scenes to each part, as
    nearly as possible. The episodes of different parts have different seeds.

    Raises:
        EnvError: If a scenario cannot be played.
        FileError: If a policy of the project is damaged.
    """
    players = [(i, False) for i in range(len(config.scenarios))]
    players += [(i, True) for i, name in enumerate(config.scenarios) if policy_file(name).exists()]
    rows: list[dict[str, Any]] = []
    screens: set[bytes] = set()
    palettes = []
    for number, (scenario, trained) in enumerate(players):
        policy, env = prepare(
            config.scenarios[scenario], config.height, config.width, trained=trained
        )
        palettes.append(env.palette)
        try:
            for part, name in enumerate(PARTS):
                wanted = quota(config.scenes, _SHARES[name], number, len(players))
                first = (config.scenes_seed * len(PARTS) + part) * SEEDS_APART
                about = {"scenario": scenario, "trained": trained, "part": part}
                played = _play(env, policy, config, first, wanted, screens)
                rows.extend({**about, **seen} for seen in played)
        finally:
            env.close()
    if any((palette != palettes[0]).any() for palette in palettes):
        raise FileError("these scenarios have different palettes; name some of them only")
    return Scenes(
        palette=palettes[0],
        **{
            name: np.stack([np.asarray(row[name], dtype) for row in rows])
            for name, dtype in _ROW.items()
        },
    )


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
    policy: Policy | None,
    config: ScenesConfig,
    first_seed: int,
    wanted: int,
    screens: set[bytes],
) -> Iterator[dict[str, Any]]:
    """Yield scenes of episodes with consecutive seeds until there are enough.

    Args:
        env: the environment.
        policy: the player. None: a random one.
        config: the size of the screen.
        first_seed: seed of the first episode.
        wanted: the number of scenes.
        screens: those that there are already, of all parts; these are left out, and new ones added.
    """
    left = wanted
    obs = observed(env)
    for seed in range(first_seed, first_seed + SEEDS_APART):
        rng = generator_of(seed)
        player = RandomPlayer(env, rng) if policy is None else TrainedPlayer(env, rng, policy)
        next_scene, of_episode, done, step = int(rng.integers(_GAP)), 0, False, 0
        env.reset(seed=seed)
        while not done and left and of_episode < _MOST_OF_EPISODE:
            if step == next_scene:
                screen, sight = env.look(config.height, config.width)
                next_scene = step + _GAP
                if (content := screen.tobytes()) not in screens:
                    screens.add(content)
                    of_episode, left = of_episode + 1, left - 1
                    yield {
                        "frames": screen[..., None],
                        "classes": sight.classes,
                        "counts": sight.counts,
                        "bearing": sight.bearing,
                        "distance": sight.distance,
                        "seed": seed,
                        "step": step,
                    }
            _, terminated, truncated = env.advance(player.act(obs))
            done, step = terminated or truncated, step + 1
        if not left:
            return


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
