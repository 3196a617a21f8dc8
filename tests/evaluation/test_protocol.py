"""Tests of `evaluation.protocol`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from agents import Policy, RandomPlayer, observation_specs
from envs import EnvConfig
from envs.doom.cfg import BUNDLED
from evaluation import protocol
from evaluation.protocol import (
    Protocol,
    baselines,
    check_fits,
    counted,
    env_config,
    native,
    parallel_envs,
    play,
    vector_env,
    warn_of_wads,
)
from perception import PerceptionConfig, VectorSpec
from storage.files import FileError
from storage.policy_file import About, PolicyFile
from tests.evaluation.policies import cartpole_policy

CARTPOLE = EnvConfig(env="CartPole-v1")
HERE = Path("here")


def policy_file(policy=None, **env):
    policy = policy or cartpole_policy(0.0)
    return PolicyFile(policy=policy, env={"env": "CartPole-v1", **env}, about=About())


def test_the_rules_of_a_scenario():
    protocol = Protocol(episodes=50, seed=7, num_envs=64)
    assert protocol.facts(EnvConfig(env="basic")) == {
        "episodes": 50,
        "seeds": [7, 56],
        "num_envs": 50,
        "reward": "native",
        "skill": 5,
        "frame_skip": 4,
        "time_limit_frames": 300,
    }
    assert protocol.sentence(EnvConfig(env="basic")) == (
        "Protocol: 50 episodes at seeds 7 to 56, which training never uses; native reward at skill "
        "5; frame_skip 4; an episode ends when the environment ends it or after 300 frames; 50 "
        "environments in parallel. Sampled: actions are sampled as in training; greedy: the most "
        "likely action is taken."
    )


def test_the_rules_of_another_environment():
    facts = Protocol().facts(EnvConfig(env="CartPole-v1", frame_skip=2))
    assert (facts["skill"], facts["time_limit_frames"], facts["frame_skip"]) == (None, None, 2)
    sentence = Protocol().sentence(CARTPOLE)
    assert "skill" not in sentence
    assert "frames;" not in sentence
    assert "when the environment ends it;" in sentence


def test_policies_are_scored_at_native_skill_and_time_limit():
    file = policy_file(env="basic", skill=1, time_limit=20, width=64)
    config = native(file, HERE, trust=False)
    assert (config.skill, config.time_limit, config.width) == (None, None, 64)


@pytest.mark.parametrize(
    ("env", "limit"), [("CartPole-v1", None), ("ALE/Pong-v5", None), ("CliffWalking-v1", 20)]
)
def test_only_an_environment_without_a_limit_of_its_own_keeps_that_of_the_training(env, limit):
    assert native(policy_file(env=env, time_limit=20), HERE, trust=False).time_limit == limit


def test_the_rules_name_the_arguments_of_an_environment():
    config = EnvConfig(env="FrozenLake-v1", env_kwargs=("is_slippery=False", "map_name=8x8"))
    assert Protocol().facts(config)["env_kwargs"] == ["is_slippery=False", "map_name=8x8"]
    assert "an environment made with is_slippery=False map_name=8x8; " in Protocol().sentence(
        config
    )


def test_wrappers_of_the_training_are_kept_but_rewards_are_native():
    file = policy_file(wrappers=("tests.envs.toy:Tripled",))
    with pytest.raises(FileError, match=r"importing tests\.envs\.toy, which .*add --trust"):
        native(file, HERE, trust=False)
    config = native(file, HERE, trust=True)
    assert (config.wrappers, config.native_reward) == (("tests.envs.toy:Tripled",), True)


def test_packages_that_a_file_names_are_imported_only_if_it_is_trusted():
    fields = {"env": "tests.agents.toy:Counter-v0"}
    with pytest.raises(FileError, match=r"here names an environment that .*add --trust"):
        env_config(fields, HERE, trust=False)
    assert env_config(fields, HERE, trust=True).env == fields["env"]
    with pytest.raises(FileError, match="there is no field 'colour'"):
        env_config({"colour": 1}, HERE, trust=True)


def test_wads_that_do_not_come_with_vizdoom_are_named_once(tmp_path, capsys):
    for name in ("basic.cfg", "basic.wad"):
        shutil.copy(BUNDLED / name, tmp_path)
    warn_of_wads("basic")
    assert capsys.readouterr().err == ""
    for _ in range(2):
        warn_of_wads(str(tmp_path / "basic.cfg"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'basic.wad'} does not come with ViZDoom")


def test_there_are_no_more_environments_than_episodes():
    with vector_env(CARTPOLE, 16, 3) as envs:
        assert envs.num_envs == 3
        assert baselines(envs).keys() == {"random"}


def test_a_policy_that_does_not_fit_is_refused():
    with vector_env(CARTPOLE, 1, 1) as envs:
        check_fits(policy_file(), envs, HERE)
        other = Policy({"obs": VectorSpec(size=3)}, spaces.Discrete(2), PerceptionConfig())
        with pytest.raises(FileError, match="here was trained on other observations than those of"):
            check_fits(policy_file(other), envs, HERE)
        specs = observation_specs(envs.single_observation_space, envs.metadata)
        other = Policy(specs, spaces.Discrete(3), PerceptionConfig())
        with pytest.raises(FileError, match=r"has actions Discrete\(3\), but CartPole-v1 has"):
            check_fits(policy_file(other), envs, HERE)


def test_episodes_are_in_the_order_of_their_seeds():
    with vector_env(CARTPOLE, 4, 9) as envs:
        episodes = play(policy_file(), envs, Protocol(episodes=9, seed=3))
    assert [episode.seed for episode in episodes] == list(range(3, 12))
    assert len({len(episode.rewards) for episode in episodes}) > 1


def test_noop_takes_the_action_that_does_nothing():
    config = EnvConfig(env="basic")
    with vector_env(config, 2, 2) as envs:
        players = baselines(envs)
        assert players.keys() == {"random", "noop"}
        episodes = play(players["noop"], envs, Protocol(episodes=2))
    for episode in episodes:
        assert not np.any(episode.actions)
        assert episode.episode_return == -300  # -1 for each frame until the time limit.


def test_one_episode_is_not_called_episodes():
    assert [counted(n, "episode") for n in (0, 1, 2, 1000)] == [
        "0 episodes",
        "1 episode",
        "2 episodes",
        "1,000 episodes",
    ]
    config = EnvConfig(env="CartPole-v1")
    assert "Protocol: 1 episode at seed 3, " in Protocol(episodes=1, seed=3).sentence(config)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 16),
        ({"observation": "rgb", "height": 480, "width": 640, "frame_stack": 4}, 9),
        ({"observation": "rgb", "height": 1448, "width": 1448}, 5),
        ({"height": 1448, "width": 1448, "extra_channels": ("depth", "labels", "automap")}, 2),
    ],
)
def test_large_observations_are_scored_in_fewer_environments(fields, expected):
    config = EnvConfig(**fields)
    assert parallel_envs(config, 16, 100) == expected
    assert parallel_envs(config, 16, 1) == 1
    assert Protocol(num_envs=16).facts(config)["num_envs"] == expected


# Every episode of an evaluation ends.


@pytest.mark.parametrize(
    ("env", "limit"),
    [
        ("CliffWalking-v1", protocol.LONGEST_EPISODE),
        ("tests.envs.toy:Endless-v0", protocol.LONGEST_EPISODE),
        ("CartPole-v1", None),
        ("basic", None),
    ],
)
def test_environments_without_a_time_limit_get_one(env, limit):
    config = protocol.bounded(EnvConfig(env=env))
    assert config.time_limit == limit
    assert protocol.bounded(config) == config
    own = EnvConfig(env=env, time_limit=70)
    assert protocol.bounded(own).time_limit == 70


@pytest.mark.timeout(120)
def test_an_evaluation_that_would_never_end_is_ended_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(protocol, "LONGEST_EPISODE", 50)
    rules = Protocol(episodes=3, num_envs=2)
    with vector_env(EnvConfig(env="CliffWalking-v1"), 2, 3) as envs:
        episodes = play(RandomPlayer(envs.single_action_space), envs, rules)
    lengths = [len(episode.rewards) for episode in episodes]
    assert max(lengths) == 50
    said = capsys.readouterr().err
    reached = lengths.count(50)
    assert f"{reached} of 3 episodes of an evaluation were ended after 50 env steps" in said
    assert "because CliffWalking-v1 has no time limit; train with --time-limit to set one" in said
