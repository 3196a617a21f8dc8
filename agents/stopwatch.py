"""Where the time of a training goes."""

from __future__ import annotations

import time
from collections.abc import Sequence

_WORTH_A_NAME = 0.01  # of all time; what took less is called other


class Stopwatch:
    """Adds up seconds by phase: each lap goes to the phase that has just ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Count the time since the last lap as spent in a phase."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def skip(self) -> None:
        """Leave out the time since the last lap."""
        self._last = time.perf_counter()

    def lap_like(self, others: Sequence[Stopwatch]) -> None:
        """Count the time since the last lap as others, which ran side by side, have spent it."""
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        total = sum(sum(other.seconds.values()) for other in others)
        for other in others:
            for phase, seconds in other.seconds.items():
                self.seconds[phase] = self.seconds.get(phase, 0.0) + elapsed * seconds / total

    def shares(self) -> dict[str, float]:
        """Give each phase's share of all time so far; they add up to 1."""
        total = sum(self.seconds.values())
        return {phase: seconds / total for phase, seconds in self.seconds.items()}

    def summary(self) -> str:
        """Say it in words, the largest share first: `games 41 %, update 35 %, other 2 %`."""
        large = {phase: share for phase, share in self.shares().items() if share >= _WORTH_A_NAME}
        ranked = sorted(large.items(), key=lambda item: -item[1])
        parts = [*ranked, ("other", max(0.0, 1.0 - sum(large.values())))]
        return ", ".join(f"{phase} {100 * share:.0f} %" for phase, share in parts)
