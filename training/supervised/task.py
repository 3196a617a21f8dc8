"""The interface of tasks: which examples there are, what is predicted, and how it is scored.

Axes: B examples, F features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.policy import Specs
from perception import ImageSpec
from training.supervised.network import Network

Part = Literal["train", "validation", "test"]
"""The parts of a data set; no example is in two of them."""

Examples = dict[str, Tensor]
"""Images and what is to be predicted of them, by name; the first axis of each tensor is B."""

Statistics = dict[str, NDArray[Any]]
"""What measures are computed from, by name; the first axis of each array is B."""

Picture = NDArray[np.uint8]
"""An RGB picture, (H, W, 3)."""


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The configuration of a task; each has its own subclass."""


ConfigT = TypeVar("ConfigT", bound=TaskConfig)


class Task(ABC, Generic[ConfigT]):
    """What a perception learns without an agent.

    Args:
        config: the configuration.

    Attributes:
        config: as above.
        score: the measure that is shown while training; higher is better.
        unit: what is resampled for intervals: a name in the examples, such as `episode`, whose
            examples are not independent of each other. Empty: single examples.
        presets: what differs from the defaults of `SeeConfig`, by dotted name.
    """

    score: ClassVar[str]
    unit: ClassVar[str] = ""
    presets: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @property
    def chosen_by(self) -> str:
        """The measure by which the best weights are chosen; higher is better."""
        return self.score

    def collect(self, stops: Callable[[], bool]) -> None:
        """Collect the data if there are none yet; most tasks have theirs.

        Args:
            stops: returns whether to stop; nothing is then left behind.

        Raises:
            EnvError: If a scenario cannot be played.
            FileError: If the data cannot be written.
            StoppedError: If it was stopped.
        """

    @abstractmethod
    def load(self, part: Part) -> Examples:
        """Return the examples of one part, always the same.

        Raises:
            FileError: If the data are missing or damaged.
            TrainingError: If a package is missing.
        """

    @abstractmethod
    def source(self) -> str:
        """Return the SHA-256 of the data, so that other data are noticed."""

    def specs(self, examples: Examples) -> Specs:
        """Return the specification of the images among the examples, by name."""
        height, width, channels = examples["image"].shape[1:]
        return {"image": ImageSpec(shape=(height, width, channels))}

    @abstractmethod
    def head(self, num_features: int) -> nn.Module:
        """Return new layers that compute predictions from (..., F) features."""

    def augment(self, batch: Examples) -> Examples:
        """Return examples of training, changed at random as other examples could look.

        Random numbers are PyTorch's.
        """
        return batch

    def predict(self, network: Network, batch: Examples) -> Any:
        """Return the network's predictions for examples; by default, for single images."""
        features = network.features({"image": batch["image"][None]})
        return network.head(features[0])

    @abstractmethod
    def loss(self, predictions: Any, batch: Examples) -> Tensor:
        """Return the mean loss of predictions, a scalar."""

    @abstractmethod
    def statistics(self, predictions: Any, batch: Examples) -> Statistics:
        """Return what the measures are computed from, for each example."""

    @abstractmethod
    def measure(self, statistics: Statistics) -> dict[str, float]:
        """Return the measures of examples by name, `score` and `chosen_by` among them."""

    @abstractmethod
    def baseline(self, train: Examples, examples: Examples) -> Statistics:
        """Return the statistics of a trivial prediction that does not look at the images.

        Args:
            train: the examples of training, of which it may know what is predicted.
            examples: the examples that it predicts.
        """

    def pictures(
        self, network: Network, examples: Examples, statistics: Statistics
    ) -> Mapping[str, Picture]:
        """Return pictures of predictions by name; none by default."""
        return {}


def count(examples: Examples) -> int:
    """Return the number of examples."""
    return len(next(iter(examples.values())))


def on_device(batch: Examples, network: Network) -> Examples:
    """Return a batch on a network's device."""
    return {name: part.to(network.device, non_blocking=True) for name, part in batch.items()}
