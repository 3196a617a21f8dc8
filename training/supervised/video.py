"""`see:video`: which scenario, which kind of player, and which event is in a short clip of Doom.

With `--frames 1 --memory none`, a single frame is seen; what needs motion shows in the difference.

Axes: B clips, T frames of a clip, H, W the screen, F features.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.policy import Specs
from perception.encoders import orthogonal
from training.supervised.classification import confusion
from training.supervised.clips import (
    EVENTS,
    PLAYERS,
    Clips,
    ClipsConfig,
    collect_clips,
    load_clips,
)
from training.supervised.collected import Stops, collect_once, screen_specs
from training.supervised.network import Network
from training.supervised.pictures import confusion_picture
from training.supervised.task import Examples, Part, Picture, Statistics, Task


@dataclass(frozen=True, kw_only=True)
class VideoConfig(ClipsConfig):
    """The configuration of `see:video`."""

    frames: int = ClipsConfig.length
    """Frames of a clip that are seen: the last ones of 8."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not 1 <= self.frames <= self.length:
            raise ValueError(f"frames must be between 1 and {self.length}, got {self.frames}")


class Video(Task[VideoConfig]):
    """Answers three questions about a clip from the features after its last frame."""

    score: ClassVar[str] = "mean_accuracy"
    unit: ClassVar[str] = "episode"
    presets: ClassVar[dict[str, Any]] = {
        "memory": "lstm",
        "perception.encoder.conv_channels": (16, 32, 32),
        "perception.encoder.features": 256,
        "perception.memory.memory_size": 128,
        "normalize_obs": True,
        "dropout": 0.2,
        "epochs": 15,
        "batch_size": 32,
    }

    def collect(self, stops: Stops) -> None:
        """See `Task.collect`."""
        collect_once(self.config, collect_clips, stops)

    @functools.cached_property
    def _clips(self) -> tuple[Clips, str]:
        return load_clips(self.config)

    @property
    def questions(self) -> dict[str, Sequence[str]]:
        """The classes of each question."""
        return {"scenario": self.config.scenarios, "player": PLAYERS, "event": EVENTS}

    def load(self, part: Part) -> Examples:
        """See `Task.load`."""
        examples = self._clips[0].examples(part)
        return {**examples, "image": examples["image"][:, -self.config.frames :]}

    def source(self) -> str:
        """See `Task.source`."""
        return self._clips[1]

    def specs(self, examples: Examples) -> Specs:
        """Return the specification of a frame."""
        return screen_specs(self.config, self._clips[0].palette)

    def head(self, num_features: int) -> nn.Module:
        """Return a linear layer with an output for each class of each question."""
        outputs = sum(len(classes) for classes in self.questions.values())
        return orthogonal(nn.Linear(num_features, outputs), 0.01)

    def augment(self, batch: Examples) -> Examples:
        """Return half of the clips, at random, as a mirror shows them."""
        mirrored = torch.rand(len(batch["image"]))[:, None, None, None, None] < 0.5
        return {**batch, "image": batch["image"].flip(3).where(mirrored, batch["image"])}

    def predict(self, network: Network, batch: Examples) -> dict[str, Tensor]:
        """Return logits by question, each (B, classes)."""
        features = network.features({"image": batch["image"].transpose(0, 1)})[-1]
        sizes = [len(classes) for classes in self.questions.values()]
        return dict(zip(self.questions, network.head(features).split(sizes, dim=-1), strict=True))

    def loss(self, predictions: dict[str, Tensor], batch: Examples) -> Tensor:
        """Return the sum of the questions' cross-entropies."""
        losses = [F.cross_entropy(logits, batch[name]) for name, logits in predictions.items()]
        return torch.stack(losses).sum()

    def statistics(self, predictions: dict[str, Tensor], batch: Examples) -> Statistics:
        """Return label and most probable class of each question."""
        return {
            **{name: batch[name].cpu().numpy() for name in predictions},
            **{
                f"predicted_{name}": logits.argmax(-1).cpu().numpy()
                for name, logits in predictions.items()
            },
        }

    def measure(self, statistics: Statistics) -> dict[str, float]:
        """Return the accuracy of each question, and their mean."""
        shares = {
            f"accuracy_{name}": float((statistics[name] == statistics[f"predicted_{name}"]).mean())
            for name in self.questions
        }
        return {"mean_accuracy": float(np.mean(list(shares.values()))), **shares}

    def baseline(self, train: Examples, examples: Examples) -> Statistics:
        """Return the statistics of always naming the most frequent class of training."""
        size = len(examples["image"])
        return {
            **{name: examples[name].numpy() for name in self.questions},
            **{
                f"predicted_{name}": np.full(size, int(train[name].bincount().argmax()))
                for name in self.questions
            },
        }

    def pictures(
        self, network: Network, examples: Examples, statistics: Statistics
    ) -> Mapping[str, Picture]:
        """Return a confusion matrix of each question."""
        pictures = {}
        for name, classes in self.questions.items():
            pair = {"label": statistics[name], "predicted": statistics[f"predicted_{name}"]}
            matrix = confusion(pair, len(classes))
            pictures[f"confusion_{name}"] = confusion_picture(matrix, classes)
        return pictures
