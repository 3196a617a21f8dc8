"""`see:objects`: which kinds of objects are on Doom's screen, how many, and where the nearest is.

Axes: B scenes, K kinds of objects, F features.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.doom.sight import KINDS
from evaluation.protocol import counted
from perception.encoders import orthogonal
from training.supervised.network import Network
from training.supervised.pictures import sheet
from training.supervised.scenes import ScenesConfig
from training.supervised.seen import SceneTask
from training.supervised.task import Examples, Picture, Statistics

# Errors of this size, in degrees and map units, count as much as a wrong presence.
_DEGREES, _UNITS = 10.0, 100.0
_USUAL_UNITS = 400.0  # A usual distance, from which predictions start.
_SHOWN = 24  # Scenes on a sheet.
_TITLE = 24  # Characters of a line of the title of a scene.


@dataclass(frozen=True, kw_only=True)
class ObjectsConfig(ScenesConfig):
    """The configuration of `see:objects`."""


class Objects(SceneTask[ObjectsConfig]):
    """Predicts of each kind whether it is visible and how often, and of the nearest monster where.

    The linear head computes K logits of presence, K counts, and bearing and distance of the nearest
    monster, which are learned from scenes with monsters alone.
    """

    score: ClassVar[str] = "mean_average_precision"

    def head(self, num_features: int) -> nn.Module:
        """Return a linear layer with 2 K + 2 outputs."""
        return orthogonal(nn.Linear(num_features, 2 * len(KINDS) + 2), 0.01)

    def loss(self, predictions: Tensor, batch: Examples) -> Tensor:
        """Return the sum of the losses of presence, counts, bearing and distance.

        Args:
            predictions: (B, 2 K + 2) float32, the outputs of the head.
            batch: the scenes.
        """
        logits, counts, bearing, distance = _split(predictions)
        presence = F.binary_cross_entropy_with_logits(logits, batch["presence"])
        number = F.smooth_l1_loss(counts, batch["counts"])
        seen = ~batch["bearing"].isnan()
        places = [
            F.smooth_l1_loss(predicted[seen], target[seen], reduction="sum")
            for predicted, target in (
                (bearing, batch["bearing"] / _DEGREES),
                (distance, (batch["distance"] - _USUAL_UNITS) / _UNITS),
            )
        ]
        return presence + number + sum(places) / seen.sum().clamp(min=1)

    def statistics(self, predictions: Tensor, batch: Examples) -> Statistics:
        """Return labels and predictions, in degrees and map units."""
        logits, counts, bearing, distance = _split(predictions.float())
        return {
            **{n: batch[n].cpu().numpy() for n in ("presence", "counts", "bearing", "distance")},
            "probability": logits.sigmoid().cpu().numpy(),
            "predicted_counts": counts.cpu().numpy(),
            "predicted_bearing": bearing.cpu().numpy() * _DEGREES,
            "predicted_distance": _USUAL_UNITS + distance.cpu().numpy() * _UNITS,
        }

    def measure(self, statistics: Statistics) -> dict[str, float]:
        """Return the average precision of each kind, and errors.

        `count_error` is the mean absolute error over all kinds. The errors of bearing, in degrees,
        and of distance, in map units, are means over scenes with monsters.
        """
        truths, scores = statistics["presence"] > 0, statistics["probability"]
        precisions = {
            f"average_precision_{kind}": average_precision(truths[:, k], scores[:, k])
            for k, kind in enumerate(KINDS)
        }
        known = [value for value in precisions.values() if not math.isnan(value)]
        errors = np.abs(statistics["counts"] - statistics["predicted_counts"])
        return {
            "mean_average_precision": float(np.mean(known)) if known else math.nan,
            **precisions,
            "count_error": float(errors.mean()),
            "bearing_error": _error(statistics, "bearing"),
            "distance_error": _error(statistics, "distance"),
        }

    def baseline(self, train: Examples, examples: Examples) -> Statistics:
        """Return the statistics of the share, median counts, bearing and distance of training."""
        size = len(examples["image"])
        return {
            **{n: examples[n].numpy() for n in ("presence", "counts", "bearing", "distance")},
            "probability": train["presence"].mean(0).expand(size, -1).numpy(),
            "predicted_counts": train["counts"].median(0).values.expand(size, -1).numpy(),
            **{
                f"predicted_{name}": train[name].nanmedian().expand(size).numpy()
                for name in ("bearing", "distance")
            },
        }

    def pictures(
        self, network: Network, examples: Examples, statistics: Statistics
    ) -> Mapping[str, Picture]:
        """Return a sheet of scenes, evenly spaced, with truths above predictions."""
        chosen = np.linspace(0, len(statistics["presence"]) - 1, _SHOWN).astype(int)
        chosen = np.unique(chosen)
        images = [self.coloured(examples["image"][i].numpy()) for i in chosen]
        titles = [
            "\n".join(
                textwrap.fill(f"{who}: {_describe(statistics, i, prefix)}", _TITLE)
                for who, prefix in (("is", ""), ("seen", "predicted_"))
            )
            for i in chosen
        ]
        return {"objects": sheet(images, titles, columns=6)}


def _split(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return logits of presence and counts, (B, K), and scaled bearing and distance, (B,)."""
    logits, counts, places = outputs.split((len(KINDS), len(KINDS), 2), dim=-1)
    return logits, counts, places[:, 0], places[:, 1]


def _error(statistics: Statistics, name: str) -> float:
    """Return the mean absolute error of a number, NaN if no scene has it."""
    errors = np.abs(statistics[name] - statistics[f"predicted_{name}"])
    return float(np.nanmean(errors)) if np.isfinite(errors).any() else math.nan


def _describe(statistics: Statistics, i: int, prefix: str) -> str:
    """Return what is, or is predicted to be, in a scene: `2 monsters -12° 310, 1 item`."""
    shares = statistics["probability" if prefix else "presence"][i]
    counts = statistics[f"{prefix}counts"][i]
    words = [
        counted(max(1, round(float(number))), kind)
        for kind, share, number in zip(KINDS, shares, counts, strict=True)
        if share > 0.5
    ]
    if shares[0] > 0.5:
        place = (statistics[f"{prefix}{name}"][i] for name in ("bearing", "distance"))
        words[0] += " {:+.0f}° {:.0f}".format(*place)
    return ", ".join(words) or "nothing"


def average_precision(truths: NDArray[np.bool_], scores: NDArray[Any]) -> float:
    """Return the average precision: the mean of the precision over the recall, in steps.

    This is the sum of precisions at each threshold, weighted by the increase in recall (as in
    scikit-learn), without interpolation. Equal scores share a threshold.

    Args:
        truths: (B,) bool, what is right.
        scores: (B,) float, higher where it is more probable.

    Returns:
        A number in (0, 1]; NaN if nothing is right.
    """
    if not truths.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(truths[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # Of each threshold.
    precision = right[last] / (last + 1)
    recall = right[last] / right[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
