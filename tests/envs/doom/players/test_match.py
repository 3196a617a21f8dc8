"""Matches with real engines: they step together, pay what they should, and survive faults."""

import os
import random
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

from envs.config import EnvConfig
from envs.doom.maps.config import MapConfig
from envs.doom.maps.level import PLAYER, Level, Thing
from envs.doom.maps.looks import room_looks
from envs.doom.players.kinds import KINDS
from envs.doom.players.match import Match, free_port
from envs.errors import EnvError
from envs.spaces import observation_parts
from tests.envs import processes

CONFIG = EnvConfig(env="players:duel", height=60, width=80)
SHOOT = [0, 0, 0, 1]  # turn, move, strafe, attack


class Corridor:
    """A kind of matches in which two players look at each other along a corridor."""

    def __init__(self, kind):
        self._kind = kind

    def __getattr__(self, name):
        return getattr(self._kind, name)

    def level(self, seed):
        rooms = np.full((3, 6), -1)
        rooms[1, 1:5] = 0
        ends = [((1, 1), 0), ((1, 4), 180)]
        things = [Thing(kind=PLAYER + i, cell=c, angle=a) for i, (c, a) in enumerate(ends)]
        things += [Thing(kind=11, cell=c, angle=a) for c, a in ends]
        looks = room_looks(MapConfig(), random.Random(0), 1)
        return Level(rooms=rooms, looks=looks, things=tuple(things), has_players=True)


@pytest.fixture(scope="module")
def match():
    match = Match(CONFIG)
    match.kind = Corridor(KINDS["duel"])
    match.reset(0)  # Here: a test is checked for what it leaves behind.
    yield match
    match.close()


def engine_pid(player):
    return int((player.scratch / "engine").read_text().split()[0])


def test_a_match_from_start_to_end(match):
    match.reset(3)
    game_times = []
    for _ in range(3):
        rewards, terminated, truncated = match.advance([[1, 0, 0, 0], [2, 0, 0, 0]])
        assert (rewards, terminated, truncated) == ([0.0, 0.0], False, False)
        game_times.append({player._game.get_episode_time() for player in match.players})
    # All engines are at the same tic, and each env step is frame_skip tics long.
    assert all(len(times) == 1 for times in game_times)
    (first,), (second,), (third,) = game_times
    assert second - first == third - second == 4
    space = match.players[0].observation_space
    views = [player.observation() for player in match.players]
    assert all(space.contains(view) for view in views)
    assert observation_parts(space).keys() == {"obs"}
    # They look in opposite directions, and see different things.
    assert (views[0] != views[1]).any()


def test_a_frag_is_paid_to_one_and_taken_from_the_other_and_ends_a_duel(match):
    match.reset(4)
    totals, terminated, truncated = np.zeros(2), False, False
    while not (terminated or truncated):
        rewards, terminated, truncated = match.advance([SHOOT, None])
        totals += rewards
    assert (terminated, truncated) == (True, False), match.statistics(0)
    mine, yours = match.statistics(0), match.statistics(1)
    assert mine["frags"] == yours["deaths"] == 1
    assert mine["deaths"] == yours["frags"] == 0
    assert mine["hits"] >= 7  # A bullet takes at most 15 of 100.
    assert (mine["result"], yours["result"]) == (1.0, 0.0)
    hits = mine["hits"]
    assert totals[0] == pytest.approx(1 + 0.05 * hits)
    assert totals[1] == pytest.approx(-1 - 0.05 * yours["hits_taken"])
    # The next match is another one: nobody has won it yet.
    match.reset(5)
    _, terminated, _ = match.advance([None, None])
    assert not terminated
    assert match.statistics(0) == {**dict.fromkeys(mine, 0.0), "result": 0.5}


def test_the_bots_of_a_kind_have_no_part_in_who_has_won(match, monkeypatch):
    match.reset(5)
    match.advance([None, None])
    match._before[0]["frags"] += 1
    monkeypatch.setattr(match, "_frags_of_others", lambda player: 9.0)  # Those of a bot.
    assert [match.statistics(i)["result"] for i in (0, 1)] == [1.0, 0.0]


def test_time_runs_out(match):
    match.reset(6)
    match.players[0].time_limit = 200
    ends = [match.advance([None, None])[1:] for _ in range(50)]
    assert ends == [(False, False)] * 49 + [(False, True)], "200 tics, 4 at a time"
    assert match.tics == 200
    with pytest.raises(EnvError, match="the match has ended; call reset"):
        match.advance([None, None])


def test_an_engine_that_dies_ends_the_match_and_the_next_one_has_new_engines(match):
    match.reset(7)
    dead, other = (engine_pid(player) for player in match.players)
    os.kill(dead, signal.SIGKILL)
    with pytest.raises(EnvError, match="engine of the match died"):
        match.advance([None, None])
    # The other player's engine is gone, too, and so are the folders of both.
    assert processes.wait_until(lambda: not processes.is_running(other), 10)
    with pytest.raises(EnvError, match="reset"):
        match.advance([None, None])
    match.reset(7)
    assert match.advance([None, None])[1:] == (False, False)
    # An engine that hangs: another thread kills the engines, as the workers' watchdog does.
    os.kill(engine_pid(match.players[1]), signal.SIGSTOP)
    killing = threading.Timer(0.3, match.kill)
    killing.start()
    with pytest.raises(EnvError, match="died"):
        match.advance([None, None])
    killing.join()


def test_two_matches_find_ports_of_their_own():
    assert free_port() != free_port()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_played_to_its_end(name):
    config = replace(CONFIG, env=f"players:{name}", time_limit=60)
    for bots in (0, 1):
        match = Match(config, bots)
        rng = np.random.default_rng(0)
        nvec = match.players[0].action_space.nvec
        for seed in range(3):
            match.reset(seed)
            ended = False
            while not ended:
                _, *ends = match.advance([rng.integers(nvec) for _ in match.players])
                ended = any(ends)
        match.close()


@pytest.mark.slow
def test_many_matches_with_kills_at_random_moments(tmp_path):
    """`DOOMGRAD_MATCHES` says how many."""
    rng = np.random.default_rng(0)
    match, kills = Match(replace(CONFIG, time_limit=40)), 0
    for seed in range(int(os.environ.get("DOOMGRAD_MATCHES", "1000"))):
        dies_at = rng.integers(10) if rng.random() < 0.1 else -1
        try:
            match.reset(seed)
            for step in range(10):
                if step == dies_at:
                    os.kill(engine_pid(match.players[rng.integers(2)]), signal.SIGKILL)
                    kills += 1
                if any(match.advance([rng.integers([3, 2, 3, 2]) for _ in range(2)])[1:]):
                    break
        except EnvError:
            assert dies_at >= 0
    match.close()
    assert kills
