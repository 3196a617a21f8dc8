"""Tests of `agents.traces`."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from agents import Sampler, observation_specs
from envs import EnvConfig, SharedVectorEnv
from tests.agents.synthetic import make_policy

NUM_ENVS, STEPS, SEED = 4, 7, 40


@contextlib.contextmanager
def make_sampler(env, memory="none", num_groups=2):
    with contextlib.closing(SharedVectorEnv(EnvConfig(env=env), NUM_ENVS, 2, num_groups)) as envs:
        specs = observation_specs(envs.single_observation_space, envs.metadata)
        policy = make_policy(specs=specs, actions=envs.single_action_space, memory=memory)
        sampler = Sampler(envs, policy, rollout_length=STEPS, seed=SEED)
        with contextlib.closing(sampler):
            yield sampler


@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_traces_are_the_steps_of_rollouts_from_the_start_of_an_episode_to_its_end(env, num_groups):
    names = ("actions", "rewards", "values", "probabilities")
    with make_sampler(env, num_groups=num_groups) as sampler:
        traces, history = [], []
        for _ in range(60):
            got = sampler.collect()
            traces += got.episodes
            parts = {n: getattr(got.rollout, n).numpy().copy() for n in (*names, "dones")}
            history.append(parts)
    whole = {name: np.concatenate([part[name] for part in history]) for name in history[0]}
    expected = {}
    for lane in range(NUM_ENVS):
        begin = 0
        for number, last in enumerate(np.flatnonzero(whole["dones"][:, lane])):
            expected[SEED + lane + number * NUM_ENVS] = {
                name: whole[name][begin : last + 1, lane] for name in names
            }
            begin = last + 1
    assert len(traces) > NUM_ENVS
    assert sorted(trace.seed for trace in traces) == sorted(expected)
    for trace in traces:
        arrays = trace.arrays()
        assert trace.statistics["l"] == len(arrays["rewards"])
        assert trace.statistics["r"] == pytest.approx(arrays["rewards"].sum(), rel=1e-5)
        for name in names:
            np.testing.assert_array_equal(arrays[name], expected[trace.seed][name])


def test_traces_stay_valid_after_the_next_rollout():
    with make_sampler("CartPole-v1") as sampler:
        while not (ended := sampler.collect().episodes):
            pass
        before = ended[0].arrays()
        sampler.collect()
        after = ended[0].arrays()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
