"""What the tasks have in common that learn from Doom's screens, see `training.supervised.scenes`.

Axes: B scenes, H, W the screen.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from agents.policy import Specs
from training.supervised.collected import Stops, collect_once, screen_specs
from training.supervised.scenes import (
    Scenes,
    ScenesConfig,
    collect_scenes,
    examples_of,
    load_scenes,
)
from training.supervised.task import Examples, Part, Picture, Task

ConfigT = TypeVar("ConfigT", bound=ScenesConfig)


class SceneTask(Task[ConfigT]):
    """Predicts something of Doom's screens; scenes of an episode are not independent."""

    unit: ClassVar[str] = "episode"
    # The network that agents in Doom have by default, so that one can start with these weights.
    # Images are normalised because monsters are few pixels in dark rooms: without it, bearings are
    # learned in twice as many epochs.
    presets: ClassVar[dict[str, Any]] = {
        "perception.encoder.conv_channels": (16, 32, 32),
        "perception.encoder.features": 256,
        "normalize_obs": True,
        "learning_rate": 2e-3,
        "epochs": 30,
    }

    def collect(self, stops: Stops) -> None:
        """See `Task.collect`."""
        collect_once(self.config, collect_scenes, stops)

    @functools.cached_property
    def _scenes(self) -> tuple[Scenes, str]:
        return load_scenes(self.config)

    def load(self, part: Part) -> Examples:
        """See `Task.load`."""
        return examples_of(self._scenes[0], part)

    def source(self) -> str:
        """See `Task.source`."""
        return self._scenes[1]

    def specs(self, examples: Examples) -> Specs:
        """Return the specification of the screen."""
        return screen_specs(self.config, self._scenes[0].palette)

    def augment(self, batch: Examples) -> Examples:
        """Return half of the scenes, at random, as a mirror shows them."""
        mirrored = torch.rand(len(batch["image"])) < 0.5
        changed = dict(batch)
        for name in ("image", "classes"):
            part = batch[name]
            shape = (-1, *(1,) * (part.ndim - 1))
            changed[name] = part.flip(2).where(mirrored.view(shape), part)
        changed["bearing"] = batch["bearing"] * (1 - 2 * mirrored.float())
        return changed

    def coloured(self, image: NDArray[np.uint8]) -> Picture:
        """Return a scene, (H, W, C) uint8, as RGB, (H, W, 3) uint8."""
        return self.config.coloured(image, self._scenes[0].palette)
