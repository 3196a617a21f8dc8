"""A match in the shape of PettingZoo's `ParallelEnv`, which need not be installed.

The contract is that of PettingZoo 1.24 and later: `reset` returns observations and infos by agent,
`step` takes actions by agent and returns five dictionaries, and `agents` is empty once the match
has ended for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.doom.players.kinds import players_kind
from envs.doom.players.match import Match
from envs.errors import EnvError

ObsDict = dict[str, Any]
InfoDict = dict[str, dict[str, Any]]


class PlayersEnv:
    """A match of several players, each with its engine and its observation.

        >>> from envs.doom.players.parallel import PlayersEnv
        >>> env = PlayersEnv(EnvConfig(env="players:duel"))
        >>> observations, infos = env.reset(seed=0)
        >>> actions = {agent: env.action_space(agent).sample() for agent in env.agents}
        >>> observations, rewards, terminations, truncations, infos = env.step(actions)

    Observations and actions are those of `DoomEnv`. A match ends for all players at once. In the
    last step, the info of each holds its `statistics`: frags, deaths, hits, hits taken, monsters
    killed, and `result`, which is 1 for who won, 0.5 for a draw, and 0.

    The same seed gives the same map, but not the same match, see `envs.doom.players.match`.

    Args:
        config: how the match is observed and acted upon.
        render_mode: None or `rgb_array`.

    Attributes:
        possible_agents: the names of all players.
        agents: of those in the current match; empty before it starts and after it has ended.

    Raises:
        EnvError: If the environment is not a match.
    """

    def __init__(self, config: EnvConfig, render_mode: str | None = None) -> None:
        if players_kind(config.env) is None:
            raise EnvError(f"{config.env} is not an environment of several players")
        self.match = Match(config)
        self.render_mode = render_mode
        self.metadata = {**self.match.players[0].metadata, "name": config.env}
        self.possible_agents = [f"player_{i}" for i in range(len(self.match.players))]
        self.agents: list[str] = []
        self._rng = np.random.default_rng()

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Return the observation space of a player."""
        return self.match.players[self.possible_agents.index(agent)].observation_space

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Return the action space of a player."""
        return self.match.players[self.possible_agents.index(agent)].action_space

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, InfoDict]:
        """Start a match, and return observations and infos by player.

        Args:
            seed: determines the map, and those that are drawn later; None: one that is drawn.
            options: unused.

        Raises:
            EnvError: If an engine could not be started, or it died.
        """
        if seed is None:
            seed = int(self._rng.integers(2**31))
        else:
            self._rng = np.random.default_rng(seed)
        self.match.reset(seed)
        self.agents = list(self.possible_agents)
        return self._observations(), {agent: {"episode_seed": seed} for agent in self.agents}

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[ObsDict, dict[str, float], dict[str, bool], dict[str, bool], InfoDict]:
        """Take the actions of all players.

        Args:
            actions: one for each player in `agents`.

        Returns:
            Observations, rewards, terminations, truncations and infos by player.

        Raises:
            EnvError: If an action is missing, the match has ended, or an engine died.
        """
        if not self.agents:
            raise EnvError("the match has ended; call reset() before step()")
        if actions.keys() != set(self.agents):
            raise EnvError(f"step() needs an action of each of {', '.join(self.agents)}")
        rewards, terminated, truncated = self.match.advance([actions[a] for a in self.agents])
        agents, observations = self.agents, self._observations()
        infos: InfoDict = {agent: {} for agent in agents}
        if terminated or truncated:
            for i, agent in enumerate(agents):
                infos[agent]["statistics"] = self.match.statistics(i)
            self.agents = []
        return (
            observations,
            dict(zip(agents, rewards, strict=True)),
            dict.fromkeys(agents, terminated),
            dict.fromkeys(agents, truncated),
            infos,
        )

    def render(self) -> NDArray[np.uint8] | None:
        """Return the screens of all players side by side, (height, width, 3) uint8 RGB."""
        return side_by_side(self.match) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End all engines."""
        self.match.close()
        self.agents = []

    def _observations(self) -> ObsDict:
        views = [player.observation() for player in self.match.players]
        return dict(zip(self.agents, views, strict=True))


def side_by_side(match: Match) -> NDArray[np.uint8]:
    """Return the screens of a match's players beside each other, with a line between them."""
    screens = [player.screen() for player in match.players]
    line = np.full((screens[0].shape[0], 2, 3), 255, np.uint8)
    parts = [part for screen in screens for part in (line, screen)]
    return np.concatenate(parts[1:], axis=1)
