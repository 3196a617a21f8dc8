"""A match for one learning player, in the shape of a Gymnasium environment.

So a match takes one place among the environments of a training, with all that holds for it: worker
processes, shared memory, faults that are replaced and counted. Who acts for the others is decided
by `opponent`:

- `random` and `still` act inside of this environment, and `bot` is the engine's own player, which
  needs no engine: these are fixed, so they serve as yardsticks.
- `self` is for policies. A worker process has no PyTorch, and one network serves many matches at
  once: so the observations of all players travel to the main process, side by side as
  `player_0.screen`, `player_1.screen` and so on, and the actions of all come back.
  `evaluation.opponents` gives each player its part, and shows a training those of the first player
  only. What is learned from is the learner's part: the others are frozen, and their matches would
  be off-policy.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.doom.maps.level import Level
from envs.doom.players.kinds import players_kind
from envs.doom.players.match import Match
from envs.doom.players.parallel import side_by_side
from envs.spaces import as_parts, observation_parts

COUNTED = ("frags", "deaths", "hits", "hits_taken", "kills", "result")
_OWN_DRAWS = 1  # Distinguishes the actions of random opponents from the seed's other uses.


class MatchEnv(gym.Env[Any, Any]):
    """A match in which one player learns; with the opponent `self`, all of them are acted for.

    Args:
        config: how the match is observed and acted upon, and who the others are.
        render_mode: None or `rgb_array`, all players side by side.

    Attributes:
        match: the match.
        single_observation_space: that of one player.
        single_action_space: that of one player.
        num_players: players that have an engine.
        info_keys: names of the numeric infos: none.
        episode_keys: names of an ended match's statistics.
    """

    def __init__(self, config: EnvConfig, render_mode: str | None = None) -> None:
        kind = players_kind(config.env)
        assert kind is not None
        self.config = config
        has_bots = config.opponent == "bot" and not kind.is_team
        self.match = Match(config, kind.num_players - 1 if has_bots else 0)
        first = self.match.players[0]
        self.num_players = len(self.match.players)
        self.metadata = first.metadata
        self.render_mode = render_mode
        self.action_names = first.action_names
        self.single_observation_space = first.observation_space
        self.single_action_space: spaces.Space[Any] = first.action_space
        self.observation_space, self.action_space = first.observation_space, first.action_space
        self._is_joint = config.opponent == "self" and self.num_players > 1
        if self._is_joint:
            self.observation_space = spaces.Dict(
                {
                    f"player_{i}.{name}": part
                    for i in range(self.num_players)
                    for name, part in observation_parts(first.observation_space).items()
                }
            )
            self.action_space = joint(first.action_space, self.num_players)
        self.info_keys: tuple[str, ...] = ()
        self.episode_keys = ("r", "l", "frames", *COUNTED)
        self._return, self._length = 0.0, 0

    @property
    def level(self) -> Level | None:
        """The map of this match."""
        return self.match.level

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a match; see `PlayersEnv.reset`."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self._rng = np.random.default_rng((seed, _OWN_DRAWS))
        self.match.reset(seed)
        self._return, self._length = 0.0, 0
        return self._observation(), {"episode_seed": seed}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action, or with the opponent `self` those of all players, and return the result.

        The reward is that of the first player.
        """
        rewards, terminated, truncated = self.match.advance(self._actions(action))
        self._return += rewards[0]
        self._length += 1
        info = {}
        if terminated or truncated:
            info["statistics"] = {
                "r": self._return,
                "l": self._length,
                "frames": self.match.tics,
                **self.match.statistics(0),
            }
        return self._observation(), rewards[0], terminated, truncated, info

    def render(self) -> NDArray[np.uint8] | None:
        """Return the screens of all players that have an engine, side by side."""
        return side_by_side(self.match) if self.render_mode == "rgb_array" else None

    def kill(self) -> None:
        """Kill engines that hang; the method that waits for them in another thread then raises."""
        self.match.kill()

    def close(self) -> None:
        """End all engines."""
        self.match.close()

    def describe_action(self, action: Any) -> str:
        """Return what an action of one player presses."""
        return self.match.players[0].describe_action(action)

    def _actions(self, action: Any) -> list[Any]:
        if self._is_joint:
            return split(self.single_action_space, action, self.num_players)
        others = self.num_players - 1
        if self.config.opponent != "random":
            return [action, *[None] * others]
        self.single_action_space.seed(int(self._rng.integers(2**31)))
        return [action, *(self.single_action_space.sample() for _ in range(others))]

    def _observation(self) -> Any:
        if not self._is_joint:
            return self.match.players[0].observation()
        seen: dict[str, Any] = {}
        for i, player in enumerate(self.match.players):
            parts = as_parts(player.observation())
            seen |= {f"player_{i}.{name}": part for name, part in parts.items()}
        return seen


def joint(space: spaces.Space[Any], num_players: int) -> spaces.MultiDiscrete[Any]:
    """Return the space of the actions of several players together, those of one after another."""
    if isinstance(space, spaces.Discrete):
        return spaces.MultiDiscrete([int(space.n)] * num_players)
    assert isinstance(space, spaces.MultiDiscrete)
    return spaces.MultiDiscrete(np.tile(space.nvec, num_players))


def split(space: spaces.Space[Any], action: NDArray[Any], num_players: int) -> list[Any]:
    """Return the action of each player, the inverse of `joint`."""
    if isinstance(space, spaces.Discrete):
        return [int(choice) for choice in action]
    return np.split(np.asarray(action), num_players)
