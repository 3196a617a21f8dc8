"""Matches in which policies act for the other players."""

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents import RandomPlayer
from agents.policy import Decision
from envs import EnvConfig, EnvError, SharedVectorEnv
from envs.doom.players import single
from evaluation.opponents import Fixed, MatchWithRival, OpponentEnvs
from tests.envs import processes
from tests.envs.doom.players.fake import FakeMatch

CPU = torch.device("cpu")


class Counting:
    """Takes the action that it observes, and remembers how many env steps it has taken."""

    def initial_state(self, num_envs):
        return torch.zeros(1, num_envs, 1)

    def act(self, obs, memory_state, episode_starts, draws):
        zeros = torch.zeros(len(draws))
        actions = obs["obs"][:, 0].long()
        self.seen = memory_state[0, :, 0].tolist(), episode_starts.tolist()
        return Decision(actions, zeros, zeros, torch.zeros(len(draws), 0), memory_state + 1)


class Taking:
    """Rivals whose names are `lane.match`, and who remember what was reported."""

    def __init__(self):
        self.matches, self.reported = {}, []
        self.policy = Counting()

    def draw(self, lane):
        self.matches[lane] = self.matches.get(lane, -1) + 1
        return f"{lane}.{self.matches[lane]}"

    def player(self, name):
        return self.policy, CPU

    def report(self, name, result):
        self.reported.append((name, result))


@pytest.fixture
def envs(monkeypatch):
    """Three matches of two players without processes; `sent` is what the workers would get."""

    def init(self, config, num_envs, **_):
        self.config, self.num_envs, self.num_groups = config, num_envs, 1
        self._slices = [slice(0, num_envs)]
        self.episode_keys = ("r", "result")
        self._arrays = SimpleNamespace(
            obs={f"player_{i}.obs": np.zeros((num_envs, 1), np.int64) for i in range(2)},
            terminated=np.zeros(num_envs, bool),
            truncated=np.zeros(num_envs, bool),
            episode=np.zeros((num_envs, 2)),
        )
        self.sent = []

    def send(self, group, actions, *, with_info=False):
        self.sent.append(actions.tolist())

    monkeypatch.setattr(SharedVectorEnv, "__init__", init)
    monkeypatch.setattr(SharedVectorEnv, "send", send)
    monkeypatch.setattr(SharedVectorEnv, "skip", lambda *_: None)
    return OpponentEnvs(EnvConfig(env="players:duel", actions="combinations"), Taking(), num_envs=3)


def test_every_player_takes_its_own_action(envs):
    assert isinstance(envs.single_action_space, spaces.Discrete)
    envs._arrays.obs["player_1.obs"][:, 0] = [5, 6, 7]
    envs.send(0, np.array([1, 2, 3]))
    assert envs.sent == [[[1, 5], [2, 6], [3, 7]]]
    with pytest.raises(EnvError, match="2 actions were given for 3"):
        envs.send(0, np.array([1, 2]))


def test_rivals_change_when_a_match_has_ended(envs):
    arrays, rivals = envs._arrays, envs.rivals
    act = rivals.policy
    envs.send(0, np.zeros(3))
    assert rivals.matches == {0: 0, 1: 0, 2: 0}
    envs.send(0, np.zeros(3))
    # Lane 0 has won its match, lane 2 has lost its to a fault, and lane 1 goes on.
    arrays.terminated[0] = arrays.truncated[2] = True
    arrays.episode[:] = [[1.0, 1.0], [np.nan, np.nan], [np.nan, np.nan]]
    seen = {}
    act.act, original = (lambda *a: seen.setdefault(len(seen), original(*a))), act.act
    envs.send(0, np.zeros(3))
    act.act = original
    assert rivals.reported == [("0.0", 1.0)]
    # After a fault, the same rival plays the match again.
    assert [envs._names[lane] for lane in range(3)] == ["0.1", "1.0", "2.0"]
    states = [envs._states[lane, 1].item() for lane in range(3)]
    assert states == [1.0, 3.0, 1.0], "memory is new where a match begins"
    # A match that is discarded is not reported.
    arrays.terminated[0] = arrays.truncated[2] = False
    envs.skip([1])
    arrays.terminated[1] = True
    envs.send(0, np.zeros(3))
    assert rivals.reported == [("0.0", 1.0)]
    assert envs._names[1] == "1.1"


def test_what_is_no_match_of_several_players():
    for env in ("basic", "CartPole-v1"):
        with pytest.raises(EnvError, match=f"{env} is not a match of several players"):
            OpponentEnvs(EnvConfig(env=env), num_envs=1)


def test_real_matches():
    config = EnvConfig(env="players:duel", height=30, width=40, variables=True, time_limit=40)
    rivals = Fixed(RandomPlayer(spaces.MultiDiscrete([3, 2, 3, 2])), CPU)
    envs = OpponentEnvs(config, rivals, num_envs=1, num_workers=1)
    try:
        assert set(envs.single_observation_space) == {"screen", "variables"}
        obs, _ = envs.reset(seed=0)
        assert envs.observation_space.contains(obs)
        for step in range(12):
            envs.send(0, envs.action_space.sample())
            result = envs.receive(0)
            assert result.obs.keys() == {"screen", "variables"}
            assert result.truncated.tolist() == [step == 9]  # 40 tics, 4 at a time.
        assert envs.num_restarts == 0
        # Of a match's engines one is killed: the match ends, and is started again.
        running = processes.command_lines(os.environ[processes.MARKER])
        engines = [pid for pid, line in running.items() if processes.is_engine(line)]
        assert len(engines) == 2
        os.kill(engines[1], signal.SIGKILL)
        envs.send(0, envs.action_space.sample())
        result = envs.receive(0)
        assert (result.terminated.tolist(), result.truncated.tolist()) == ([False], [True])
        assert np.isnan(result.episode).all()
        assert envs.num_restarts == 1
        assert "engine of the match died" in envs.last_restart
        envs.send(0, envs.action_space.sample())
        assert envs.receive(0).truncated.tolist() == [False]
    finally:
        envs.close()


def test_a_match_that_is_shown(monkeypatch):
    monkeypatch.setattr(single, "Match", FakeMatch)
    config = EnvConfig(env="players:duel", height=30, width=40, actions="combinations")
    rival = Counting()
    rival.act, original = (lambda obs, *a: original({"obs": obs["obs"][:, 0, 0]}, *a)), rival.act
    env = MatchWithRival(config, rival, CPU)
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    starts = []
    monkeypatch.setattr(FakeMatch, "advance", lambda self, a: (starts.append(a), ([0, 0], 0, 0))[1])
    for _ in range(2):
        env.step(4)
    # The rival sees its own view, whose pixels are 1, and takes that action.
    assert starts == [[4, 1], [4, 1]]
    assert rival.seen == ([1.0], [False]), "its memory goes on, and only the first step is new"
    assert env.render().shape == (120, 322, 3)
