"""Rewards that are added for learning, where native ones are rare.

They change what is optimal (Ng et al. 1999), so evaluations, scores and all that is reported go
without them. To add one, write a subclass of `Shaping` and add a line to `SHAPING`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import gymnasium as gym

from envs.doom.env import DoomEnv


class Shaping(gym.Wrapper[Any, Any, Any, Any], ABC):
    """Adds to each reward by how much a measure of progress has grown.

    Args:
        env: a Doom environment.
    """

    @abstractmethod
    def progress(self, doom: DoomEnv) -> float:
        """Return the progress in this episode, in units of reward; called once an env step."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        result = self.env.reset(**kwargs)
        self._made = self.progress(cast(DoomEnv, self.unwrapped))
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and add the progress to the reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        made = self.progress(cast(DoomEnv, self.unwrapped))
        reward, self._made = float(reward) + made - self._made, made
        return observation, reward, terminated, truncated, info


class NewPlaces(Shaping):
    """Pays 0.02 for each square of 96 x 96 map units that is entered for the first time."""

    reward = 0.02
    side = 96.0  # As generated maps' cells.

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode, in which no place has been entered."""
        self._entered: set[tuple[float, float]] = set()
        return super().reset(**kwargs)

    def progress(self, doom: DoomEnv) -> float:
        """See `Shaping.progress`."""
        pose = doom.pose()
        self._entered.add((pose.x // self.side, pose.y // self.side))
        return self.reward * len(self._entered)


class Damage(Shaping):
    """Pays 0.02 for each point of health that others lose by the player, and takes 0.01 for own."""

    dealt, taken = 0.02, 0.01

    def progress(self, doom: DoomEnv) -> float:
        """See `Shaping.progress`."""
        counted = doom.episode_statistics()
        return self.dealt * counted["damage"] - self.taken * counted["damage_taken"]


SHAPING: dict[str, type[Shaping]] = {"new_places": NewPlaces, "damage": Damage}


def check_shaping(names: tuple[str, ...]) -> None:
    """Check that there are such rewards.

    Raises:
        ValueError: If there are not.
    """
    unknown = [name for name in names if name not in SHAPING]
    if unknown:
        raise ValueError(f"unknown shaping {unknown[0]!r}; choose from {', '.join(SHAPING)}")


def shaped(env: gym.Env[Any, Any], names: tuple[str, ...]) -> gym.Env[Any, Any]:
    """Return a Doom environment with rewards added, the first of them innermost."""
    for name in names:
        env = SHAPING[name](env)
    return env
