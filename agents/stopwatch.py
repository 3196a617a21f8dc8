"""Measuring how a training run spends its time."""

from __future__ import annotations

import time
from collections.abc import Sequence

_SMALLEST_SHARE = 0.01  # Of the total time; phases with less are summarised as "other".


class Stopwatch:
    """Adds up seconds by phase; each lap ends one phase and starts the next.

    Attributes:
        seconds: time spent so far, by phase.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Add the time since the last lap to a phase."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def skip(self) -> None:
        """Ignore the time since the last lap."""
        self._last = time.perf_counter()

    def lap_like(self, others: Sequence[Stopwatch]) -> None:
        """Add the time since the last lap to the phases of stopwatches that ran at the same time.

        The time is counted once, and divided among phases in proportion to their total seconds.

        Args:
            others: stopwatches of threads, all started after the last lap.
        """
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        total = sum(sum(other.seconds.values()) for other in others)
        for other in others:
            for phase, seconds in other.seconds.items():
                self.seconds[phase] = self.seconds.get(phase, 0.0) + elapsed * seconds / total

    def shares(self) -> dict[str, float]:
        """Return each phase's share of the total time, in [0, 1]; they add up to 1."""
        total = sum(self.seconds.values())
        return {phase: seconds / total for phase, seconds in self.seconds.items()}

    def summary(self) -> str:
        """Return the shares as text, the largest first, as in `update 85 %, other 15 %`."""
        large = {phase: share for phase, share in self.shares().items() if share >= _SMALLEST_SHARE}
        ranked = sorted(large.items(), key=lambda item: -item[1])
        parts = [*ranked, ("other", max(0.0, 1.0 - sum(large.values())))]
        return ", ".join(f"{phase} {100 * share:.0f} %" for phase, share in parts)
