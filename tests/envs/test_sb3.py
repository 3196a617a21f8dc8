"""Tests of `envs.sb3`: it behaves like Stable-Baselines3's own vector environments."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from envs import EnvConfig, EnvError, make
from envs.sb3 import make_vec_env
from evaluation.entries import ZOO
from evaluation.protocol import Protocol, env_config, play, vector_env
from storage.run_folder import find_policy

SMALL = {"width": 40, "height": 30}


@contextlib.contextmanager
def opened(env_id="basic", n_envs=3, **options):
    with contextlib.closing(make_vec_env(env_id, n_envs, num_workers=2, **options)) as vec_env:
        yield vec_env


def compare_by_step(ours, theirs, steps):
    """Take the same actions in both until every first episode has ended."""
    rng = np.random.default_rng(0)
    ours.action_space.seed(0)
    running = np.ones(ours.num_envs, bool)
    for _ in range(steps):
        actions = np.array([ours.action_space.sample() for _ in running])
        actions = rng.permutation(actions)
        one, other = ours.step(actions), theirs.step(actions)
        for i in np.flatnonzero(running):
            assert one[1][i] == other[1][i]
            assert one[2][i] == other[2][i]
            mine, its = one[3][i], other[3][i]
            if one[2][i]:
                running[i] = False
                assert np.array_equal(mine["terminal_observation"], its["terminal_observation"])
                assert mine["TimeLimit.truncated"] == its["TimeLimit.truncated"]
                assert mine["episode"]["r"] == pytest.approx(its["episode"]["r"], abs=1e-5)
                assert mine["episode"]["l"] == its["episode"]["l"]
            else:
                assert np.array_equal(one[0][i], other[0][i])
        if not running.any():
            return
    pytest.fail("an episode has not ended")


@pytest.mark.parametrize(
    ("env_id", "options"), [("basic", {"observation": "rgb", **SMALL}), ("CartPole-v1", {})]
)
def test_behaves_like_sb3s_own_vector_environment(env_id, options):
    config = EnvConfig(env=env_id, **options)
    theirs = DummyVecEnv([lambda: Monitor(make(config))] * 3)
    with opened(env_id, **options) as ours, contextlib.closing(theirs):
        assert ours.observation_space == theirs.observation_space
        assert ours.action_space == theirs.action_space
        assert ours.seed(7) == theirs.seed(7) == [7, 8, 9]
        assert np.array_equal(ours.reset(), theirs.reset())
        compare_by_step(ours, theirs, 600)


def test_infos_are_reported_at_every_step_and_episodes_at_their_end():
    with opened(seed=0, time_limit=40, **SMALL) as vec_env:
        vec_env.reset()
        assert vec_env.reset_infos[0]["HEALTH"] == 100
        ends = 0
        while ends < 3:
            _, _, dones, infos = vec_env.step(np.zeros(3, int))
            for done, info in zip(dones, infos, strict=True):
                assert info["HEALTH"] == 100
                assert ("episode" in info) == ("terminal_observation" in info) == done
                if done:
                    assert info["TimeLimit.truncated"]
                    assert info["episode"]["r"] == -40
                    assert info["episode"]["frames"] == 40
                    ends += 1


def test_attributes_and_methods_of_environments_are_available():
    with opened("tests.agents.toy:Counter-v0") as vec_env:
        vec_env.seed(5)
        vec_env.reset()
        assert vec_env.get_attr("_seed") == [5, 6, 7]
        vec_env.set_attr("_step", 2, indices=[0, 2])
        assert vec_env.get_attr("_step") == [2, 0, 2]
        assert vec_env.env_method("has_wrapper_attr", "_step", indices=1) == [True]
        assert vec_env.env_method("_observe")[0] == [5, 2]
        assert vec_env.has_attr("_step")
        assert not vec_env.has_attr("nothing_of_the_kind")
        with pytest.raises(EnvError, match="cannot be sent between processes"):
            vec_env.get_attr("action_space")
        with pytest.raises(EnvError, match="TypeError"):
            vec_env.env_method("_observe", 1, 2, 3)
        vec_env.step(np.zeros(3, int))  # The error has no consequences.


def test_attributes_of_doom_are_available_too():
    with opened(**SMALL) as vec_env:
        assert vec_env.get_attr("episode_keys")[0][:2] == ["r", "l"]
        assert vec_env.env_is_wrapped(Monitor) == [True] * 3
        assert vec_env.env_is_wrapped(VecNormalize) == [False] * 3


def test_sb3s_wrappers_and_agents_work_on_it():
    with opened(n_envs=4, seed=0, observation="gray", width=48, height=40) as vec_env:
        stacked = VecFrameStack(vec_env, 2)
        assert stacked.observation_space.shape == (40, 48, 2)
        model = PPO("CnnPolicy", stacked, n_steps=16, batch_size=32, n_epochs=1, seed=0)
        model.learn(64)
        assert model.num_timesteps == 64


def test_sb3_evaluates_a_policy_like_our_protocol():
    file, _ = find_policy(ZOO / "basic")
    config = env_config(file.env, ZOO / "basic", trust=False)
    protocol = Protocol(episodes=4, seed=20, num_envs=2)
    with vector_env(config, 2, 4) as envs:
        ours = [e.episode_return for e in play(file, envs, protocol, greedy=True)]
    options = {name: value for name, value in vars(config).items() if name != "env"}
    with opened("basic", 2, seed=20, **options) as vec_env:
        theirs, lengths = evaluate_policy(file.policy, vec_env, 4, return_episode_rewards=True)
    assert sorted(theirs) == sorted(ours)
    assert all(length > 0 for length in lengths)


def test_the_error_for_a_wrong_name_has_the_closest_one():
    with pytest.raises(EnvError, match="did you mean basic"):
        make_vec_env("basik")


def test_arguments_of_an_environment_may_be_a_dictionary():
    kwargs = {"is_slippery": False, "map_name": "8x8"}
    with opened("FrozenLake-v1", 2, env_kwargs=kwargs) as vec_env:
        assert vec_env.observation_space.shape == (64,)
        assert vec_env.envs.config.env_kwargs == ("is_slippery=False", "map_name='8x8'")
