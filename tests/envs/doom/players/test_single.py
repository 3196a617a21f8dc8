"""A match for one learning player."""

from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from envs.config import EnvConfig
from envs.doom.players import single
from envs.doom.players.single import MatchEnv, joint, split
from tests.envs.doom.players.fake import FakeMatch

CONFIG = EnvConfig(env="players:duel", height=30, width=40)


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    monkeypatch.setattr(single, "Match", FakeMatch)


@pytest.mark.parametrize("opponent", ["self", "bot", "random", "still"])
@pytest.mark.filterwarnings("ignore")
def test_it_is_a_gymnasium_environment(opponent):
    check_env(MatchEnv(replace(CONFIG, opponent=opponent)), skip_render_check=True)


def test_an_episode():
    env = MatchEnv(replace(CONFIG, opponent="still"))
    _, info = env.reset(seed=3)
    assert info == {"episode_seed": 3}
    steps = [env.step(np.array([2, 0, 0, 0])) for _ in range(5)]
    assert [reward for _, reward, *_ in steps] == [2.0] * 5
    assert [truncated for *_, truncated, _ in steps] == [False] * 4 + [True]
    statistics = steps[-1][-1]["statistics"]
    assert tuple(statistics) == env.episode_keys
    assert (statistics["r"], statistics["l"], statistics["frames"]) == (10.0, 5, 20)
    assert statistics["result"] == 1.0
    assert all(theirs is None for _, theirs in env.match.taken)


def test_random_opponents_are_those_of_the_seed():
    taken = []
    for seed in (5, 5, 6):
        env = MatchEnv(replace(CONFIG, opponent="random"))
        env.reset(seed=seed)
        for _ in range(5):
            env.step(np.zeros(4, int))
        taken.append([theirs.tolist() for _, theirs in env.match.taken])
    assert taken[0] == taken[1] != taken[2]
    assert len({tuple(action) for action in taken[0]}) > 1


def test_bots_need_no_engine():
    assert MatchEnv(replace(CONFIG, opponent="bot")).num_players == 1
    assert MatchEnv(replace(CONFIG, env="players:cooperation", opponent="bot")).num_players == 2


def test_all_players_together():
    env = MatchEnv(CONFIG)
    obs, _ = env.reset(seed=0)
    assert {name: int(part[0, 0, 0]) for name, part in obs.items()} == {
        "player_0.obs": 0,
        "player_1.obs": 1,
    }
    env.step(np.array([1, 0, 0, 0, 2, 0, 0, 1]))
    assert [a.tolist() for a in env.match.taken[0]] == [[1, 0, 0, 0], [2, 0, 0, 1]]
    both = MatchEnv(replace(CONFIG, variables=True)).observation_space
    assert sorted(both) == [f"player_{i}.{n}" for i in (0, 1) for n in ("screen", "variables")]


@pytest.mark.parametrize("space", [spaces.Discrete(5), spaces.MultiDiscrete([3, 2, 4])])
def test_joint_actions_are_taken_apart_again(space):
    together = joint(space, 3)
    each = [space.sample() for _ in range(3)]
    action = np.array(each).reshape(-1)
    assert together.contains(action.astype(together.dtype))
    assert np.array_equal(split(space, action, 3), each)
