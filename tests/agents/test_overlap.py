"""Tests of `agents.overlap`, on environments whose correct answers are known."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import numpy as np
import pytest
import torch

from agents import AGENTS, OverlappedSampler, Sampler, observation_specs
from perception import VectorSpec
from tests.agents.synthetic import assert_same, assert_same_episodes, make_policy, weights
from tests.agents.toy import LocalEnvs, sent_first

COUNTER, CONSTANT = "tests.agents.toy:Counter-v0", "tests.agents.toy:Truncated-v0"
STEPS, NUM_ENVS, SEED = 11, 4, 100


def counter_policy(memory="none"):
    return make_policy(specs={"obs": VectorSpec(size=2)}, memory=memory)


def make_sampler(policy, env=COUNTER, *, num_groups=1, num_teams=1, ready=sent_first):
    envs = LocalEnvs(env, NUM_ENVS, num_groups, ready, num_teams)
    return Sampler(envs, policy, rollout_length=STEPS, seed=SEED, num_buffers=2)


@contextlib.contextmanager
def overlapped(policy, env=COUNTER, **options):
    sampler = OverlappedSampler(make_sampler(policy, env, **options))
    with contextlib.closing(sampler):
        yield sampler


def parts(collected):
    """Return copies of all tensors of a rollout."""
    return {name: part.clone() for name, part in collected.rollout.tensors().items()}


def slowly(sent):
    time.sleep(0.002)
    return sent[0]


def sampler_threads():
    """Return the threads of samplers and of their teams."""
    kinds = ("sampler", "team")
    return [thread for thread in threading.enumerate() if thread.name.startswith(kinds)]


@pytest.mark.parametrize(("num_groups", "num_teams"), [(1, 1), (2, 1), (4, 2)])
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_with_constant_weights_rollouts_are_those_of_a_sampler(memory, num_groups, num_teams):
    policy = counter_policy(memory)
    alone = make_sampler(policy, num_groups=num_groups)
    with overlapped(policy, num_groups=num_groups, num_teams=num_teams) as sampler:
        for version in range(5):
            collected, expected = sampler.collect(version), alone.collect(version)
            assert_same(parts(collected), parts(expected))
            assert_same_episodes(collected.episodes, expected.episodes)
            assert collected.next_episode_seed == expected.next_episode_seed


@pytest.mark.parametrize(("ready", "pause"), [(sent_first, 0.02), (slowly, 0), (sent_first, 0)])
def test_a_rollout_is_collected_with_the_weights_of_one_update_ago(ready, pause):
    policy = make_policy(specs={"obs": VectorSpec(size=1)})
    # The value of every observation is the number of updates.
    torch.nn.init.zeros_(policy.critic.weight)
    with overlapped(policy, CONSTANT, ready=ready) as sampler:
        for update in range(5):
            policy.critic.bias.data.fill_(update)
            collected = sampler.collect(update)
            values = collected.rollout.values
            assert collected.version == max(0, update - 1)
            assert torch.equal(values, torch.full_like(values, collected.version))
            assert torch.equal(collected.rollout.last_values, values[0])
            policy.critic.bias.data.fill_(float("nan"))  # As during an update.
            time.sleep(pause)


def learn(agent, *, ready=sent_first, pause=0.0, overlap=True, updates=6, **options):
    """Train in this process, and return the weights and the metrics of all updates."""
    torch.manual_seed(0)
    kind, learner = AGENTS[agent]
    envs = LocalEnvs("CartPole-v1", NUM_ENVS, 2, ready)
    specs = observation_specs(envs.single_observation_space, {})
    memory = options.pop("memory", "none")
    normalize_obs = options.get("normalize_obs", False)
    policy = make_policy(
        specs=specs, actions=envs.single_action_space, memory=memory, normalize_obs=normalize_obs
    )
    config = kind(rollout_length=STEPS, learning_rate=1e-2, **options)
    learning = learner(policy, config, num_envs=NUM_ENVS, total_updates=updates)
    sampler = Sampler(envs, policy, rollout_length=STEPS, seed=SEED, num_buffers=2)
    collector = OverlappedSampler(sampler) if overlap else sampler
    metrics = []
    with contextlib.closing(collector):
        for update in range(updates):
            collected = collector.collect(update)
            metrics.append(learning.update(collected.rollout, version=collected.version))
            time.sleep(pause)
    return weights(policy), metrics


@pytest.mark.parametrize(
    ("agent", "options"),
    [
        ("ppo", {"num_epochs": 2, "minibatch_size": 20}),
        ("ppo", {"num_epochs": 1, "minibatch_size": 22, "vtrace": True, "memory": "lstm"}),
        ("vtrace", {"normalize_obs": True}),
    ],
    ids=str,
)
def test_learning_does_not_depend_on_timing(agent, options):
    expected, metrics = learn(agent, updates=4, **options)
    for pace in ({"ready": slowly}, {"pause": 0.02}):
        again, also = learn(agent, updates=4, **options, **pace)
        assert_same(again, expected)
        assert also == metrics
    other, _ = learn(agent, updates=4, overlap=False, **options)
    assert not all(torch.equal(other[name], expected[name]) for name in other)


def test_the_ratio_differs_from_1_only_with_older_weights():
    _, metrics = learn("ppo", num_epochs=1, minibatch_size=None)
    assert metrics[0]["approx_kl"] == pytest.approx(0, abs=1e-6)
    # The second rollout was collected with the same weights as the first one.
    assert all(after["approx_kl"] > 1e-6 for after in metrics[1:])
    _, alone = learn("ppo", num_epochs=1, minibatch_size=None, overlap=False)
    assert all(after["approx_kl"] == pytest.approx(0, abs=1e-6) for after in alone)


@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize(("overlap", "unlearned"), [(False, 1), (True, 2)])
def test_rollouts_without_statistics_are_not_used_for_training(memory, overlap, unlearned):
    options = {"num_epochs": 1, "minibatch_size": None, "memory": memory, "normalize_obs": True}
    _, metrics = learn("ppo", overlap=overlap, **options)
    assert metrics[:unlearned] == [{}] * unlearned
    # Observations were normalised in the same way when they were collected: the ratio is 1.
    assert metrics[unlearned]["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert metrics[unlearned]["grad_norm"] > 0


def test_a_rollout_stays_valid_while_the_next_one_is_collected():
    policy = counter_policy("lstm")
    alone = make_sampler(policy)
    expected = [parts(alone.collect()) for _ in range(3)]
    sampler = OverlappedSampler(make_sampler(policy))
    collected = [sampler.collect() for _ in range(3)]
    sampler.close()  # This waits for the fourth.
    assert_same(parts(collected[2]), expected[2])
    addresses = [each.rollout.values.data_ptr() for each in collected]
    assert addresses[0] == addresses[2] != addresses[1]


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("rollout", [0, 2])
def test_an_error_in_the_thread_is_raised_by_collect(rollout):
    waits = itertools.count()

    def ready(sent):
        if next(waits) == rollout * STEPS + 3:
            raise BrokenError
        return sent[0]

    with overlapped(counter_policy(), ready=ready) as sampler:
        for _ in range(rollout):
            sampler.collect()
        with pytest.raises(BrokenError):
            sampler.collect()
        # It is raised by later calls too.
        with pytest.raises(BrokenError):
            sampler.collect()
    assert not sampler_threads()


@pytest.mark.parametrize("num_teams", [1, 2])
def test_closing_waits_for_the_rollout_in_progress_and_ends_all_threads(num_teams):
    waits = []

    def ready(sent):
        waits.append(threading.current_thread())
        return slowly(sent)

    inner = make_sampler(counter_policy(), num_groups=2, num_teams=num_teams, ready=ready)
    sampler = OverlappedSampler(inner)
    assert not waits
    sampler.collect()
    assert len(sampler_threads()) == num_teams
    sampler.close()
    assert len(waits) == 2 * 2 * STEPS
    assert threading.current_thread() not in waits
    assert not sampler_threads()
    sampler.close()


def test_closing_before_the_first_rollout_collects_nothing():
    waits = []
    sampler = OverlappedSampler(make_sampler(counter_policy(), ready=waits.append))
    sampler.close()
    assert not waits


def test_the_learner_keeps_its_threads_while_the_sampler_uses_one():
    collecting, resume, waits = threading.Event(), threading.Event(), itertools.count()
    threads = []

    def ready(sent):
        threads.append(torch.get_num_threads())
        if next(waits) == STEPS + 1:  # During the second rollout.
            collecting.set()
            resume.wait(10)
        return sent[0]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with overlapped(counter_policy(), ready=ready) as sampler:
            sampler.collect()
            assert collecting.wait(10)
            assert torch.get_num_threads() == 2
            resume.set()
            sampler.collect()
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(threads) == {1}


def test_learner_and_sampler_have_separate_stopwatches():
    policy = counter_policy()
    inner = make_sampler(policy)
    sampler = OverlappedSampler(inner)
    for _ in range(2):
        sampler.collect()
        sampler.stopwatch.lap("update")
    sampler.close()
    assert sampler.stopwatch.seconds.keys() == {"rollout", "update"}
    assert {"environments", "inference", "transfer", "learner"} == inner.stopwatch.seconds.keys()
    assert np.isfinite(list(inner.stopwatch.seconds.values())).all()
