"""The values of hyper-parameters that a search tries.

The configurations of agents list them in `search_space`; `training.tune.search` samples from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, sampled uniformly.

    Attributes:
        low: the smallest.
        high: the largest.
        log: whether the logarithms of the numbers are sampled uniformly instead.
    """

    low: float
    high: float
    log: bool = False

    def including(self, value: float) -> Range:
        """Return this range, widened so that it includes a value."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def __str__(self) -> str:
        """Return the range as text, as in `0.9 to 1`."""
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """A few values, sampled uniformly."""

    values: tuple[Any, ...]

    def including(self, value: Any) -> Choice:
        """Return this choice, with a value added unless it is already included."""
        return self if value in self.values else Choice((value, *self.values))

    def __str__(self) -> str:
        """Return the values as text, as in `32, 64`."""
        return ", ".join(map(str, self.values))


SearchSpace = Mapping[str, Range | Choice]
"""The values to try, by field of a configuration."""
