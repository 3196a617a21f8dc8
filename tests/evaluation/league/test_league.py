"""Leagues: standings, Wilson's intervals, and what may not play."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from envs import EnvConfig
from evaluation.entries import Contestant
from evaluation.errors import EvaluationError
from evaluation.league import league as module
from evaluation.league.league import BOT, RANDOM, League, play_league, standings, wilson
from evaluation.protocol import Protocol
from evaluation.report import league as report
from storage.recording import Episode

DUEL = EnvConfig(env="players:duel", opponent="bot")


@pytest.mark.parametrize(("won", "matches"), [(0, 5), (7, 20), (50, 50), (123, 400)])
def test_wilson(won, matches):
    ours, theirs = wilson(won, matches), binomtest(won, matches).proportion_ci(method="wilson")
    assert ours.estimate == won / matches
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_standings():
    results = {
        (0, 1): np.array([1.0, 1.0, 0.5, 0.5]),
        (0, 2): np.ones(4),
        (1, 2): np.array([1.0, 0.0, 1.0, 1.0]),
    }
    names = ("a", RANDOM, "c")
    table = standings(names, results)
    assert [each.name for each in table] == ["a", RANDOM, "c"]
    assert [each.matches for each in table] == [8, 8, 8]
    assert [each.win_rate.estimate for each in table] == [7 / 8, 4 / 8, 1 / 8]
    assert table[1].rating.rating == 0
    assert table[0].rating.low <= table[0].rating.rating <= table[0].rating.high
    league = League(env=DUEL.env, names=names, results=results, standings=table)
    assert league.between(2, 0).tolist() == [0.0] * 4
    notes = report.notes(Protocol(episodes=5), DUEL)
    assert "6 matches of each pair, two on each map of the seeds 0 to 2" in notes
    assert "at most 1,050 frames" in notes
    text = report.markdown(league, notes)
    assert "| a |  | 75 % (2-2-0) | 100 % (4-0-0) |" in text
    assert "| c | 0 % (0-0-4) | 25 % (1-0-3) |  |" in text
    assert league.as_dict()["results"][0] == {
        "player": "a",
        "opponent": RANDOM,
        "points": [1.0, 1.0, 0.5, 0.5],
    }


def contestant(config=DUEL):
    return Contestant(path=Path("run"), file=None, config=config)


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([EnvConfig(env="basic")], "trained in players:duel, players:deathmatch; basic is another"),
        ([EnvConfig(env="players:cooperation", opponent="random")], "is another environment"),
        ([DUEL, replace(DUEL, height=30)], "b was trained in another environment, or with other"),
    ],
)
def test_who_may_not_play(configs, message):
    players = [(name, contestant(c)) for name, c in zip("ab", configs, strict=False)]
    with pytest.raises(EvaluationError, match=message):
        play_league(players, Protocol(episodes=2))


def test_every_pair_plays_with_sides_exchanged(monkeypatch):
    """In this league, who is later in the alphabet wins, but the host draws if it would lose."""

    class Envs(module.OpponentEnvs):
        def __init__(self, config, num_envs):
            self.config, self.single_action_space = config, None

        def close(self):
            pass

    class Bots(Envs):
        rivals = BOT

    def play(player, envs, protocol):
        result = 1.0 if str(player) > str(envs.rivals) else 0.5
        names.append((player, envs.rivals, protocol.episodes))
        return [
            Episode(
                seed=seed,
                greedy=False,
                actions=np.zeros(1),
                rewards=np.zeros(1),
                values=np.zeros(1, np.float32),
                probabilities=np.zeros((1, 1), np.float32),
                terminated=True,
                gamma=0.0,
                statistics={"r": 0.0, "result": result},
            )
            for seed in range(protocol.episodes)
        ]

    names = []
    monkeypatch.setattr(module, "OpponentEnvs", Envs)
    monkeypatch.setattr(module, "SharedVectorEnv", Bots)
    monkeypatch.setattr(module, "check_fits", lambda *_: None)
    monkeypatch.setattr(module, "RandomPlayer", lambda _: RANDOM)
    monkeypatch.setattr(module, "_rival", lambda player, _: player)
    monkeypatch.setattr(module, "play", play)
    players = [(name, replace(contestant(), file=name)) for name in ("x", "y")]
    league = play_league(players, Protocol(episodes=3))
    assert league.names == ("x", "y", RANDOM, BOT)
    assert names[:2] == [("x", "y", 2), ("y", "x", 2)]
    assert names[-1] == (RANDOM, BOT, 4)
    # x draws as the host and loses as the guest.
    assert league.results[0, 1].tolist() == [0.5, 0.5, 0.0, 0.0]
    assert league.results[0, 2].tolist() == [1.0, 1.0, 0.5, 0.5]
    assert league.standings[0].name == "y"
