"""`see:segments`: the class of each pixel of Doom's screen.

Axes: B scenes, H, W the screen, C classes, F features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.doom.sight import CLASSES
from perception.encoders import orthogonal
from training.supervised.network import Network
from training.supervised.pictures import sheet
from training.supervised.scenes import ScenesConfig
from training.supervised.seen import SceneTask
from training.supervised.task import Examples, Picture, Statistics

_COARSE = 4  # Side of a pixel of the map that is computed from features, in the screen's pixels.
_SHOWN = 12  # Scenes on a sheet, each with truth and prediction.
_COLOURS = np.array([(25, 25, 25), (220, 60, 50), (70, 180, 75), (255, 215, 60)], np.uint8)


@dataclass(frozen=True, kw_only=True)
class SegmentsConfig(ScenesConfig):
    """The configuration of `see:segments`."""

    decoder_channels: int = 16
    """Channels of the map, at a quarter of the screen's size, that is computed from features."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not 1 <= self.decoder_channels <= 1_024:
            raise ValueError(
                f"decoder_channels must be between 1 and 1,024, got {self.decoder_channels}"
            )


class Map(nn.Module):
    """Computes a map of logits from features alone, so that these must hold what is where.

    Its convolutions work on a map of a quarter of the screen's size, whose channels then become
    pixels (Shi et al. 2016), which takes less time than transposed convolutions.

    Args:
        num_features: F.
        channels: of the layers between.
        size: (H, W).
    """

    def __init__(self, num_features: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        height, width = (-(-side // _COARSE) for side in size)
        self.layers = nn.Sequential(
            orthogonal(nn.Linear(num_features, channels * height * width)),
            nn.ReLU(),
            nn.Unflatten(1, (channels, height, width)),
            orthogonal(nn.Conv2d(channels, 2 * channels, 3, padding=1)),
            nn.ReLU(),
            orthogonal(nn.Conv2d(2 * channels, len(CLASSES) * _COARSE**2, 3, padding=1), 0.1),
            nn.PixelShuffle(_COARSE),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, H, W) float32 logits for (B, F) float32 features."""
        logits: Tensor = self.layers(features)
        return logits[..., : self.size[0], : self.size[1]]


class Segments(SceneTask[SegmentsConfig]):
    """Predicts the class of each pixel from the features, see `Map`."""

    score: ClassVar[str] = "mean_iou"
    presets: ClassVar[dict[str, Any]] = {**SceneTask.presets, "epochs": 20}

    def head(self, num_features: int) -> nn.Module:
        """Return a `Map` of the screen's size."""
        size = (self.config.height, self.config.width)
        return Map(num_features, self.config.decoder_channels, size)

    def loss(self, predictions: Tensor, batch: Examples) -> Tensor:
        """Return the cross-entropy of pixels plus the Dice loss of classes (Milletari et al. 2016).

        Nearly all pixels are background: cross-entropy alone would find rare classes late.

        Args:
            predictions: (B, C, H, W) logits.
            batch: the scenes.
        """
        classes = batch["classes"]
        entropy = F.cross_entropy(predictions, classes.long())
        probabilities = predictions.softmax(1)[:, 1:]  # Not of the background.
        right = (
            classes[:, None] == torch.arange(1, len(CLASSES), device=classes.device)[:, None, None]
        )
        common = (probabilities * right).sum((0, 2, 3))
        both = probabilities.sum((0, 2, 3)) + right.sum((0, 2, 3))
        return entropy + (1 - (2 * common + 1) / (both + 1)).mean()

    def statistics(self, predictions: Tensor, batch: Examples) -> Statistics:
        """Return the confusion of the pixels of each scene, (B, C, C): truths are rows."""
        return _confusion(predictions.argmax(1), batch["classes"])

    def measure(self, statistics: Statistics) -> dict[str, float]:
        """Return the mean of the classes' IoU, and each of them."""
        ious = iou(statistics["confusion"].sum(0))
        return {
            "mean_iou": float(np.nanmean(ious)),
            **{f"iou_{name}": float(value) for name, value in zip(CLASSES, ious, strict=True)},
        }

    def baseline(self, train: Examples, examples: Examples) -> Statistics:
        """Return the statistics of predicting the most frequent class of training at each pixel."""
        counts = torch.stack([(train["classes"] == c).sum(0) for c in range(len(CLASSES))])
        return _confusion(counts.argmax(0).expand_as(examples["classes"]), examples["classes"])

    def pictures(
        self, network: Network, examples: Examples, statistics: Statistics
    ) -> Mapping[str, Picture]:
        """Return a sheet of scenes with most objects of their part, truths and predictions."""
        spaced = np.linspace(0, len(examples["image"]) - 1, 8 * _SHOWN).astype(int)
        objects = (examples["classes"][spaced] > 0).sum((1, 2)).numpy()
        chosen = np.unique(spaced[np.argsort(-objects)[:_SHOWN]])
        batch = {name: part[chosen].to(network.device) for name, part in examples.items()}
        with torch.no_grad():
            predicted = self.predict(network, batch).argmax(1).cpu().numpy()
        images, titles = [], []
        for i, classes in zip(chosen, predicted, strict=True):
            images += [self.coloured(examples["image"][i].numpy())]
            images += [_COLOURS[examples["classes"][i].numpy()], _COLOURS[classes]]
            titles += ["screen", "truth", "predicted"]
        return {"segments": sheet(images, titles, columns=6)}


def _confusion(predicted: Tensor, classes: Tensor) -> Statistics:
    """Return how often each class was predicted for each, by scene.

    Args:
        predicted: (B, H, W) integers.
        classes: (B, H, W) integers.
    """
    number = len(CLASSES)
    scenes = torch.arange(len(classes), device=classes.device)[:, None, None]
    pairs = (scenes * number + classes.long()) * number + predicted.long()
    counts = torch.bincount(pairs.flatten(), minlength=len(classes) * number**2)
    return {"confusion": counts.view(-1, number, number).cpu().numpy()}


def iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the intersection over union of each class (Jaccard index), (C,) float64 in [0, 1].

    Args:
        confusion: (C, C), how many pixels of each class (rows) were predicted as each (columns).

    Returns:
        NaN for a class that neither occurs nor is predicted.
    """
    common = np.diag(confusion).astype(float)
    union = confusion.sum(0) + confusion.sum(1) - common
    ious: NDArray[np.float64] = np.full(len(common), math.nan)
    np.divide(common, union, out=ious, where=union > 0)
    return ious
