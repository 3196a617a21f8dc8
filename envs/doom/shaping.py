"""Rewards that are added for learning, where native ones are rare.

They change what is optimal (Ng et al. 1999), so evaluations, scores and all that is reported go
without them. To add one, write a subclass of `Shaping` and add a line to `SHAPING`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envs.doom.env import DoomEnv


class Shaping(ABC):
    """A measure of progress in an episode, whose growth is added to rewards."""

    _made = 0.0

    def start(self, doom: DoomEnv) -> None:
        """Start an episode."""
        self._made = self.progress(doom)

    def reward(self, doom: DoomEnv) -> float:
        """Return how much progress the last env step has made."""
        before, self._made = self._made, self.progress(doom)
        return self._made - before

    @abstractmethod
    def progress(self, doom: DoomEnv) -> float:
        """Return the progress in this episode, in units of reward; called once an env step."""


class NewPlaces(Shaping):
    """Pays 0.02 for each square of 96 x 96 map units that is entered for the first time."""

    each = 0.02
    side = 96.0  # As generated maps' cells.

    def start(self, doom: DoomEnv) -> None:
        """Start an episode, in which no place has been entered."""
        self._entered: set[tuple[float, float]] = set()
        super().start(doom)

    def progress(self, doom: DoomEnv) -> float:
        """See `Shaping.progress`."""
        pose = doom.pose()
        self._entered.add((pose.x // self.side, pose.y // self.side))
        return self.each * len(self._entered)


class Damage(Shaping):
    """Pays 0.02 for each point of health that others lose by the player, and takes 0.01 for own."""

    dealt, taken = 0.02, 0.01

    def progress(self, doom: DoomEnv) -> float:
        """See `Shaping.progress`."""
        counted = doom.episode_statistics()
        return self.dealt * counted["damage"] - self.taken * counted["damage_taken"]


SHAPING: dict[str, type[Shaping]] = {"new_places": NewPlaces, "damage": Damage}


def check_shaping(names: Sequence[str]) -> None:
    """Check names of rewards.

    Raises:
        ValueError: If one is unknown.
    """
    unknown = [name for name in names if name not in SHAPING]
    if unknown:
        raise ValueError(f"unknown shaping {unknown[0]!r}; choose from {', '.join(SHAPING)}")
