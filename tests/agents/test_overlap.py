"""Tests of `agents.overlap`, on worlds whose answers are known."""

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
    """Copy all that a rollout holds."""
    return {name: part.clone() for name, part in collected.rollout.tensors().items()}


def slowly(sent):
    time.sleep(0.002)
    return sent[0]


def sampler_threads():
    """List the threads that play; those that serve teams too."""
    kinds = ("sampler", "team")
    return [thread for thread in threading.enumerate() if thread.name.startswith(kinds)]


@pytest.mark.parametrize(("num_groups", "num_teams"), [(1, 1), (2, 1), (4, 2)])
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_weights_that_stay_play_the_same_rollouts_in_the_same_order(memory, num_groups, num_teams):
    policy = counter_policy(memory)
    alone = make_sampler(policy, num_groups=num_groups)
    with overlapped(policy, num_groups=num_groups, num_teams=num_teams) as sampler:
        for version in range(5):
            collected, expected = sampler.collect(version), alone.collect(version)
            assert_same(parts(collected), parts(expected))
            assert_same_episodes(collected.episodes, expected.episodes)
            assert collected.next_episode_seed == expected.next_episode_seed


@pytest.mark.parametrize(("ready", "pause"), [(sent_first, 0.02), (slowly, 0), (sent_first, 0)])
def test_a_rollout_is_played_with_the_weights_of_one_update_ago(ready, pause):
    policy = make_policy(specs={"obs": VectorSpec(size=1)})
    # Whatever is seen, it is worth the number of updates.
    torch.nn.init.zeros_(policy.critic.weight)
    with overlapped(policy, CONSTANT, ready=ready) as sampler:
        for update in range(5):
            policy.critic.bias.data.fill_(update)
            collected = sampler.collect(update)
            values = collected.rollout.values
            assert collected.version == max(0, update - 1)
            assert torch.equal(values, torch.full_like(values, collected.version))
            assert torch.equal(collected.rollout.last_values, values[0])
            policy.critic.bias.data.fill_(float("nan"))  # an update in the midst of its work
            time.sleep(pause)


def learn(agent, *, ready=sent_first, pause=0.0, overlap=True, updates=6, **options):
    """Train in this process; give the weights and the metrics of all updates."""
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
        ("ppo", {"minibatch_size": 20}),
        ("ppo", {"minibatch_size": 20, "vtrace": True, "memory": "lstm"}),
        ("vtrace", {"normalize_obs": True}),
    ],
    ids=str,
)
def test_what_is_learned_does_not_depend_on_who_is_faster(agent, options):
    expected, metrics = learn(agent, **options)
    for pace in ({}, {"ready": slowly}, {"pause": 0.02}):
        again, also = learn(agent, **options, **pace)
        assert_same(again, expected)
        assert also == metrics
    other, _ = learn(agent, overlap=False, **options)
    assert not all(torch.equal(other[name], expected[name]) for name in other)


def test_only_rollouts_of_older_weights_have_moved_ratios():
    _, metrics = learn("ppo", num_epochs=1, minibatch_size=None)
    assert metrics[0]["approx_kl"] == pytest.approx(0, abs=1e-6)
    # The second was played with the first one's weights.
    assert all(after["approx_kl"] > 1e-6 for after in metrics[1:])
    _, alone = learn("ppo", num_epochs=1, minibatch_size=None, overlap=False)
    assert all(after["approx_kl"] == pytest.approx(0, abs=1e-6) for after in alone)


@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize(("overlap", "unlearned"), [(False, 1), (True, 2)])
def test_nothing_is_learned_from_rollouts_played_without_statistics(memory, overlap, unlearned):
    options = {"num_epochs": 1, "minibatch_size": None, "memory": memory, "normalize_obs": True}
    _, metrics = learn("ppo", overlap=overlap, **options)
    assert metrics[:unlearned] == [{}] * unlearned
    # Who acted saw what the learner sees: ratios begin at 1.
    assert metrics[unlearned]["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert metrics[unlearned]["grad_norm"] > 0


def test_a_rollout_stays_while_the_next_one_is_in_the_making():
    policy = counter_policy("lstm")
    alone = make_sampler(policy)
    expected = [parts(alone.collect()) for _ in range(3)]
    sampler = OverlappedSampler(make_sampler(policy))
    handed = [sampler.collect() for _ in range(3)]
    sampler.close()  # It waits for the fourth.
    assert_same(parts(handed[2]), expected[2])
    places = [collected.rollout.values.data_ptr() for collected in handed]
    assert places[0] == places[2] != places[1]


class BrokenWorldError(Exception):
    pass


@pytest.mark.parametrize("rollout", [0, 2])
def test_an_error_in_the_thread_reaches_who_asks(rollout):
    waits = itertools.count()

    def ready(sent):
        if next(waits) == rollout * STEPS + 3:
            raise BrokenWorldError
        return sent[0]

    with overlapped(counter_policy(), ready=ready) as sampler:
        for _ in range(rollout):
            sampler.collect()
        with pytest.raises(BrokenWorldError):
            sampler.collect()
        # It does not go on as if nothing had happened.
        with pytest.raises(BrokenWorldError):
            sampler.collect()
    assert not sampler_threads()


@pytest.mark.parametrize("num_teams", [1, 2])
def test_closing_waits_for_the_rollout_in_the_making_and_leaves_no_thread(num_teams):
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


def test_closing_what_never_collected_does_nothing():
    waits = []
    sampler = OverlappedSampler(make_sampler(counter_policy(), ready=waits.append))
    sampler.close()
    assert not waits


def test_the_learner_keeps_its_threads_while_the_sampler_has_one():
    playing, go_on, waits = threading.Event(), threading.Event(), itertools.count()
    threads = []

    def ready(sent):
        threads.append(torch.get_num_threads())
        if next(waits) == STEPS + 1:  # in the midst of the second rollout
            playing.set()
            go_on.wait(10)
        return sent[0]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with overlapped(counter_policy(), ready=ready) as sampler:
            sampler.collect()
            assert playing.wait(10)
            assert torch.get_num_threads() == 2
            go_on.set()
            sampler.collect()
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(threads) == {1}


def test_each_side_has_a_stopwatch_of_its_own():
    policy = counter_policy()
    inner = make_sampler(policy)
    sampler = OverlappedSampler(inner)
    for _ in range(2):
        sampler.collect()
        sampler.stopwatch.lap("update")
    sampler.close()
    assert sampler.stopwatch.seconds.keys() == {"rollout", "update"}
    assert {"games", "inference", "transfer", "learner"} == inner.stopwatch.seconds.keys()
    assert np.isfinite(list(inner.stopwatch.seconds.values())).all()
