"""Which values of a hyper-parameter are worth trying.

Configurations of agents name them in `search_space`; `evaluation.tuning` draws from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, drawn evenly: themselves, or their logarithms."""

    low: float
    high: float
    log: bool = False

    def including(self, value: float) -> Range:
        """Widen it as far as it takes to hold a value."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """A few values."""

    values: tuple[Any, ...]

    def including(self, value: Any) -> Choice:
        """Add a value, if it is not among them."""
        return self if value in self.values else Choice((value, *self.values))

    def __str__(self) -> str:
        """Say it in words."""
        return ", ".join(map(str, self.values))


SearchSpace = Mapping[str, Range | Choice]
"""What to try for each field of a configuration that is worth searching."""
