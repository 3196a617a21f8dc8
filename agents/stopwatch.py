"""Where the time of a training goes."""

from __future__ import annotations

import time


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

    def shares(self) -> dict[str, float]:
        """Give each phase's share of all time so far; they add up to 1."""
        total = sum(self.seconds.values())
        return {phase: seconds / total for phase, seconds in self.seconds.items()}

    def summary(self) -> str:
        """Say it in words, the largest share first: `games 41 %, update 35 %`."""
        ranked = sorted(self.shares().items(), key=lambda item: -item[1])
        return ", ".join(f"{phase} {share:.0%}".replace("%", " %") for phase, share in ranked)
