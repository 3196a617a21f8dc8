"""What tasks have in common that name one of several classes.

Axes: B examples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.encoders import orthogonal
from training.supervised.task import Examples, Statistics, Task, TaskConfig

_LEAST = 1e-12  # Probability of a label: one that was thought impossible costs no more than this.

ConfigT = TypeVar("ConfigT", bound=TaskConfig)


class Classification(Task[ConfigT]):
    """Predicts the `label` of examples, (B,) int64 in 0 to K - 1.

    Attributes:
        classes: the names of the K classes.
    """

    score: ClassVar[str] = "accuracy"
    classes: Sequence[str]

    @property
    def chosen_by(self) -> str:
        """The likelihood: of a few hundred images, equally many are right in several epochs."""
        return "log_likelihood"

    def head(self, num_features: int) -> nn.Module:
        """Return a linear layer with K outputs."""
        return orthogonal(nn.Linear(num_features, len(self.classes)), 0.01)

    def loss(self, predictions: Tensor, batch: Examples) -> Tensor:
        """Return the cross-entropy of (B, K) logits."""
        return F.cross_entropy(predictions, batch["label"])

    def statistics(self, predictions: Tensor, batch: Examples) -> Statistics:
        """Return label, most probable class, and the probability of the label."""
        probabilities = predictions.softmax(-1)
        label = batch["label"]
        return {
            "label": label.cpu().numpy(),
            "predicted": probabilities.argmax(-1).cpu().numpy(),
            "probability": probabilities.gather(1, label[:, None])[:, 0].cpu().numpy(),
        }

    def measure(self, statistics: Statistics) -> dict[str, float]:
        """Return the accuracy, the share of examples whose class is predicted, and a likelihood.

        `log_likelihood` is the mean logarithm of the probability of the label, in nats: minus the
        cross-entropy.
        """
        probability = np.maximum(statistics["probability"], _LEAST)
        return {
            "accuracy": float((statistics["label"] == statistics["predicted"]).mean()),
            "log_likelihood": float(np.log(probability).mean()),
        }

    def baseline(self, train: Examples, examples: Examples) -> Statistics:
        """Return the statistics of always predicting the most frequent class of training."""
        shares = torch.bincount(train["label"], minlength=len(self.classes)) / len(train["label"])
        return self.statistics(shares.log().expand(len(examples["label"]), -1), examples)


def confusion(statistics: Statistics, num_classes: int) -> NDArray[np.int64]:
    """Return how often each class was predicted for each, (K, K): labels are rows.

    Args:
        statistics: `label` and `predicted`, (B,) integers.
        num_classes: K.
    """
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (statistics["label"], statistics["predicted"]), 1)
    return matrix


def stratified(labels: NDArray[Any], shares: Sequence[float], seed: int) -> list[NDArray[np.int64]]:
    """Divide examples at random into parts in which each class has the same share.

    Args:
        labels: (B,) the class of each example.
        shares: of each part but the last, which gets the rest.
        seed: of the random order.

    Returns:
        The indices of the examples of each part, in ascending order.
    """
    rng = np.random.default_rng(seed)
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        ends = np.rint(np.cumsum(shares) * len(members)).astype(int)
        for part, chosen in zip(parts, np.split(members, ends), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) for part in parts]
