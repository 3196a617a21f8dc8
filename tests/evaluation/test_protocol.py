"""Tests of `evaluation.protocol`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from agents import observation_specs
from agents.checkpoint import About, FileError, PolicyFile
from envs import EnvConfig
from evaluation.protocol import (
    Protocol,
    baselines,
    check_fits,
    native,
    play,
    vector_env,
    world,
)
from perception import VectorSpec
from tests.agents.synthetic import make_policy
from tests.evaluation.policies import cartpole_policy

CARTPOLE = EnvConfig(env="CartPole-v1")
HERE = Path("here")


def policy_file(policy=None, **env):
    policy = policy or cartpole_policy(0.0)
    return PolicyFile(policy=policy, env={"env": "CartPole-v1", **env}, about=About())


def test_the_rules_of_a_world_of_doom():
    protocol = Protocol(episodes=50, seed=7, num_envs=64)
    assert protocol.facts(EnvConfig(env="basic")) == {
        **{"episodes": 50, "seeds": [7, 56], "num_envs": 50, "reward": "native", "skill": 5},
        **{"frame_skip": 4, "time_limit_frames": 300},
    }
    said = protocol.sentence(EnvConfig(env="basic"))
    for words in ("50 episodes at seeds 7 to 56", "skill 5", "frame_skip 4", "after 300 frames"):
        assert words in said
    assert "50 games in parallel" in said


def test_the_rules_of_another_world():
    facts = Protocol().facts(EnvConfig(env="CartPole-v1", frame_skip=2))
    assert (facts["skill"], facts["time_limit_frames"], facts["frame_skip"]) == (None, None, 2)
    said = Protocol().sentence(CARTPOLE)
    assert "skill" not in said
    assert "frames;" not in said
    assert "where the game ends it;" in said


def test_policies_are_judged_at_native_skill_and_time():
    file = policy_file(env="basic", skill=1, time_limit=20, width=64)
    config = native(file, HERE, trust=False)
    assert (config.skill, config.time_limit, config.width) == (None, None, 64)


def test_a_file_may_not_have_packages_imported():
    fields = {"env": "tests.agents.toy:Counter-v0"}
    with pytest.raises(FileError, match=r"here names a world that cannot be: .*add --trust"):
        world(fields, HERE, trust=False)
    assert world(fields, HERE, trust=True).env == fields["env"]
    with pytest.raises(FileError, match="there is no field 'colour'"):
        world({"colour": 1}, HERE, trust=True)


def test_there_are_no_more_environments_than_episodes():
    with vector_env(CARTPOLE, 16, 3) as envs:
        assert envs.num_envs == 3
        assert baselines(envs).keys() == {"random"}


def test_a_policy_that_does_not_fit_is_refused():
    with vector_env(CARTPOLE, 1, 1) as envs:
        check_fits(policy_file(), envs, HERE)
        blind = make_policy(specs={"obs": VectorSpec(size=3)}, actions=spaces.Discrete(2))
        with pytest.raises(FileError, match="here observes something else than CartPole-v1 shows"):
            check_fits(policy_file(blind), envs, HERE)
        specs = observation_specs(envs.single_observation_space, envs.metadata)
        idle = make_policy(specs=specs, actions=spaces.Discrete(3))
        with pytest.raises(FileError, match=r"has actions Discrete\(3\), CartPole-v1 has"):
            check_fits(policy_file(idle), envs, HERE)


def test_episodes_come_in_the_order_of_their_seeds():
    with vector_env(CARTPOLE, 4, 9) as envs:
        episodes = play(policy_file(), envs, Protocol(episodes=9, seed=3))
    assert [episode.seed for episode in episodes] == list(range(3, 12))
    assert len({len(episode.rewards) for episode in episodes}) > 1


def test_doing_nothing_in_doom_does_nothing():
    config = EnvConfig(env="basic")
    with vector_env(config, 2, 2) as envs:
        players = baselines(envs)
        assert players.keys() == {"random", "noop"}
        episodes = play(players["noop"], envs, Protocol(episodes=2))
    for episode in episodes:
        assert not np.any(episode.actions)
        assert episode.episode_return == -300  # One for each frame until time is up.
