"""`PlayersEnv` keeps the written contract of PettingZoo's `ParallelEnv`."""

import numpy as np
import pytest

from envs.config import EnvConfig
from envs.doom.players import parallel
from envs.doom.players.match import Match
from envs.doom.players.parallel import PlayersEnv
from envs.errors import EnvError
from tests.envs.doom.players.fake import FakeMatch

CONFIG = EnvConfig(env="players:duel", height=30, width=40)


def check_parallel_api(env, cycles):
    """Check what PettingZoo's `parallel_api_test` checks, which may not be installed.

    https://pettingzoo.farama.org/api/parallel/
    """
    assert len(set(env.possible_agents)) == len(env.possible_agents) > 1
    for agent in env.possible_agents:
        assert env.observation_space(agent) is env.observation_space(agent), "the same object"
        assert env.action_space(agent) is env.action_space(agent)
    for seed in range(cycles):
        result = env.reset(seed=seed)
        assert (type(result), len(result)) == (tuple, 2)
        assert all(isinstance(part, dict) for part in result)
        assert env.agents == env.possible_agents
        has_finished = set()
        while env.agents:
            live = set(env.agents)
            assert live.isdisjoint(has_finished), "a player that has finished does not come back"
            step = env.step({agent: env.action_space(agent).sample() for agent in env.agents})
            assert (type(step), len(step)) == (tuple, 5)
            obs, rewards, terminations, truncations, infos = step
            for part in step:
                assert isinstance(part, dict)
                assert part.keys() == live
            for agent in live:
                assert env.observation_space(agent).contains(obs[agent])
                assert isinstance(rewards[agent], float)
                assert isinstance(terminations[agent], bool)
                assert isinstance(truncations[agent], bool)
                assert isinstance(infos[agent], dict)
                if terminations[agent] or truncations[agent]:
                    has_finished.add(agent)
            assert set(env.agents) == live - has_finished
    env.close()


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(parallel, "Match", FakeMatch)


@pytest.mark.usefixtures("fake")
def test_the_contract():
    check_parallel_api(PlayersEnv(CONFIG), cycles=3)


@pytest.mark.slow
def test_the_contract_with_engines():
    check_parallel_api(PlayersEnv(CONFIG), cycles=1)


@pytest.mark.usefixtures("fake")
def test_every_player_gets_its_own():
    env = PlayersEnv(CONFIG, render_mode="rgb_array")
    obs, infos = env.reset(seed=7)
    assert infos == {"player_0": {"episode_seed": 7}, "player_1": {"episode_seed": 7}}
    assert {agent: int(view[0, 0, 0]) for agent, view in obs.items()} == {
        "player_0": 0,
        "player_1": 1,
    }
    actions = {"player_1": np.array([2, 0, 0, 0]), "player_0": np.array([1, 0, 0, 0])}
    _, rewards, *_ = env.step(actions)
    # The fake pays each player its first choice.
    assert rewards == {"player_0": 1.0, "player_1": 2.0}
    screens = [player.screen() for player in env.match.players]
    picture = env.render()
    assert picture.shape == (120, 2 * 160 + 2, 3)
    assert (picture[:, :160] == screens[0]).all()
    assert (picture[:, 160:162] == 255).all()
    assert (picture[:, 162:] == screens[1]).all()


@pytest.mark.usefixtures("fake")
def test_a_seed_determines_the_matches_that_follow():
    drawn = []
    for _ in range(2):
        env = PlayersEnv(CONFIG)
        seeds = [env.reset(seed=5)] + [env.reset() for _ in range(2)]
        drawn.append([infos["player_0"]["episode_seed"] for _, infos in seeds])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3


@pytest.mark.usefixtures("fake")
def test_misuse():
    env = PlayersEnv(CONFIG)
    with pytest.raises(EnvError, match="call reset"):
        env.step({})
    env.reset(seed=0)
    with pytest.raises(EnvError, match="an action of each of player_0, player_1"):
        env.step({"player_0": 0})
    with pytest.raises(EnvError, match="basic is not an environment of several players"):
        PlayersEnv(EnvConfig(env="basic"))


def test_the_fake_is_like_a_match():
    used = ("reset", "advance", "statistics", "kill", "close")
    assert all(hasattr(Match, name) and hasattr(FakeMatch, name) for name in used)
