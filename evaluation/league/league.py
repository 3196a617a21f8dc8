"""All against all: matches between policies, random actions and the engine's own bots.

Axes: K players.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents import Player, RandomPlayer
from agents.device import choose_device
from envs import EnvConfig, SharedVectorEnv
from envs.doom.players import KINDS, PREFIX, players_kind
from evaluation.entries import Contestant
from evaluation.errors import EvaluationError
from evaluation.league.ratings import Rating, rate
from evaluation.opponents import RESULT, Fixed, OpponentEnvs
from evaluation.protocol import Protocol, check_fits, parallel_envs, play
from evaluation.statistics import Interval
from storage.onnx_file import PlayableFile
from storage.policy_file import PolicyFile

RANDOM, BOT = "random", "bot"
_Z = 1.959963984540054  # The standard normal distribution's quantile at 97.5 %.
Floats = NDArray[np.float64]
Results = dict[tuple[int, int], Floats]
"""For each pair of players (i, j), i < j: 1 for each match that i won, 0.5 for a draw, 0."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a player stands in a league.

    Attributes:
        name: the player's name.
        rating: on the scale of Elo, relative to the player `random`, whose rating is 0.
        win_rate: points per match against all others, a draw is half a point.
        matches: how many it played.
    """

    name: str
    rating: Rating
    win_rate: Interval
    matches: int


@dataclass(frozen=True, kw_only=True)
class League:
    """The results of a league.

    Attributes:
        env: the environment.
        names: of the players.
        results: of every match, see `Results`.
        standings: best first.
    """

    env: str
    names: tuple[str, ...]
    results: Results
    standings: tuple[Standing, ...]

    def between(self, i: int, j: int) -> Floats:
        """Return the results of all matches of player i against player j, from i's side."""
        return self.results[i, j] if i < j else 1 - self.results[j, i]

    def as_dict(self) -> dict[str, Any]:
        """Return the results for JSON."""
        return {
            "env": self.env,
            "players": [asdict(standing) for standing in self.standings],
            "results": [
                {"player": self.names[i], "opponent": self.names[j], "points": each.tolist()}
                for (i, j), each in self.results.items()
            ],
        }


def wilson(points: float, matches: int) -> Interval:
    """Return points per match with the 95 % interval of Wilson (1927).

    Draws make results less variable than this assumes, so the interval is then too wide.
    """
    rate, z2 = points / matches, _Z**2
    centre = (rate + z2 / (2 * matches)) / (1 + z2 / matches)
    half = _Z * sqrt(rate * (1 - rate) / matches + z2 / (4 * matches**2)) / (1 + z2 / matches)
    return Interval(estimate=rate, low=max(0.0, centre - half), high=min(1.0, centre + half))


def standings(names: Sequence[str], results: Results) -> tuple[Standing, ...]:
    """Return the standings of players, best first.

    Args:
        names: K names; the rating of `random` is 0 if it is one of them, otherwise the mean is.
        results: of every pair that played.
    """
    anchor = names.index(RANDOM) if RANDOM in names else None
    ratings = rate(results, len(names), anchor=anchor)
    found = []
    for i, name in enumerate(names):
        points = [each if i == pair[0] else 1 - each for pair, each in results.items() if i in pair]
        own = np.concatenate(points)
        found.append(
            Standing(
                name=name,
                rating=ratings[i],
                win_rate=wilson(float(own.sum()), len(own)),
                matches=len(own),
            )
        )
    return tuple(sorted(found, key=lambda s: -s.rating.rating))


def play_league(
    contestants: Sequence[tuple[str, Contestant]],
    protocol: Protocol,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> League:
    """Let all play against all, and against random actions and the engine's bot.

    Each pair plays every map twice, with sides exchanged: the host's commands arrive a tic earlier.
    Against a bot, which has no engine, each map is played once. Actions are sampled.

    Args:
        contestants: policies and their names.
        protocol: `episodes` is the number of matches of each pair.
        progress: is called with a line about what is being played.

    Raises:
        EvaluationError: If the policies were not trained in the same duel.
        FileError: If a policy does not fit the environment.
    """
    config = _common(contestants)
    device = choose_device(protocol.device)
    names = [name for name, _ in contestants] + [RANDOM, BOT]
    maps = -(-protocol.episodes // 2)
    results: Results = {}
    with contextlib.ExitStack() as stack:
        envs = stack.enter_context(contextlib.closing(_open(OpponentEnvs, config, protocol)))
        assert isinstance(envs, OpponentEnvs)
        for _, contestant in contestants:
            check_fits(contestant.file, envs, contestant.path)
        random = RandomPlayer(envs.single_action_space)
        players: list[Player | PlayableFile] = [c.file for _, c in contestants]
        players.append(random)
        rivals = [_rival(player, device) for player in players]
        for i, j in itertools.combinations(range(len(players)), 2):
            progress(f"{names[i]} against {names[j]}")
            sides = []
            for mine, theirs in ((i, j), (j, i)):
                envs.rivals = rivals[theirs]
                sides.append(_points(players[mine], envs, replace(protocol, episodes=maps)))
            results[i, j] = np.concatenate([sides[0], 1 - sides[1]])
    bot = len(players)
    with contextlib.closing(_open(SharedVectorEnv, config, protocol)) as envs:
        for i, player in enumerate(players):
            progress(f"{names[i]} against {names[bot]}")
            results[i, bot] = _points(player, envs, replace(protocol, episodes=2 * maps))
    results = dict(sorted(results.items()))
    return League(
        env=config.env,
        names=tuple(names),
        results=results,
        standings=standings(names, results),
    )


def _common(contestants: Sequence[tuple[str, Contestant]]) -> EnvConfig:
    """Return the environment that all have in common.

    Raises:
        EvaluationError: If there is none, or it is not one in which players fight each other.
    """
    config = replace(contestants[0][1].config, opponent="bot")
    duels = ", ".join(f"{PREFIX}{name}" for name, kind in KINDS.items() if not kind.is_team)
    kind = players_kind(config.env)
    if kind is None or kind.is_team:
        raise EvaluationError(
            f"a league is of policies that play against each other, trained in {duels}; "
            f"{config.env} is another environment"
        )
    for name, contestant in contestants:
        if replace(contestant.config, opponent="bot") != config:
            raise EvaluationError(
                f"{name} was trained in another environment, or with other observations, than "
                f"{contestants[0][0]}; name policies of one environment"
            )
    return config


def _open(kind: type[SharedVectorEnv], config: EnvConfig, protocol: Protocol) -> SharedVectorEnv:
    num_envs = parallel_envs(config, protocol.num_envs, -(-protocol.episodes // 2))
    return kind(config, num_envs=num_envs)


def _rival(player: Player | PlayableFile, device: torch.device) -> Fixed:
    if isinstance(player, PolicyFile):
        return Fixed(player.policy.to(device), device)
    acting = player if isinstance(player, RandomPlayer) else player.policy  # type: ignore[union-attr] # an ONNX file has one
    return Fixed(acting, torch.device("cpu"))


def _points(
    player: Player | PlayableFile, envs: SharedVectorEnv, protocol: Protocol
) -> NDArray[np.float64]:
    episodes = play(player, envs, protocol)
    return np.array([episode.statistics[RESULT] for episode in episodes], np.float64)
