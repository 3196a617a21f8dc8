"""Tests of `agents.distributed`: ranks are threads, and the oracle is one process with all data.

tests/test_torchrun.py has ranks that are processes.
"""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
import torch.distributed as dist

from agents import OBJECTIVES, OUR_AGENTS, AgentError, Sampler, distributed, make_objectives
from agents.agent import NotFiniteError
from agents.distributed import ALONE, Averaging, RankError, joined_ranks, launched_ranks
from agents.normalization import RewardScaler
from agents.objectives.reported import NOT_REPORTED
from perception import VectorSpec
from perception.normalization import RunningMeanStd
from tests.agents.synthetic import (
    IMAGE,
    VECTOR,
    assert_same,
    make_policy,
    make_rollout,
    weights,
)
from tests.agents.thread_ranks import run_ranks
from tests.agents.toy import LocalEnvs

STEPS, NUM_ENVS = 8, 6
COUNTER = "tests.agents.toy:Counter-v0"
TARGETS = ("ENEMY_IN_VIEW", "HEALTH", "DEPTH_0_0", "MONSTER_IN_VIEW_0")
TOLERANCE = 1e-6
EXTREME = ["", "short", "x" * 5000]


def part_of(rollout, ranks):
    """Return the environments of a rollout that belong to a rank."""
    num_envs = rollout.rewards.shape[1] // ranks.size
    mine = slice(ranks.rank * num_envs, (ranks.rank + 1) * num_envs)
    is_mine = (rollout.final_lanes >= mine.start) & (rollout.final_lanes < mine.stop)
    changes = {
        "obs": {name: part[:, mine] for name, part in rollout.obs.items()},
        "targets": {name: part[:, mine] for name, part in rollout.targets.items()},
        "last_obs": {name: part[mine] for name, part in rollout.last_obs.items()},
        "final_obs": {name: part[is_mine] for name, part in rollout.final_obs.items()},
        "last_values": rollout.last_values[mine],
        "last_starts": rollout.last_starts[mine],
        "final_steps": rollout.final_steps[is_mine],
        "final_lanes": rollout.final_lanes[is_mine] - mine.start,
    }
    for field in dataclasses.fields(rollout):
        if field.name not in changes:
            changes[field.name] = getattr(rollout, field.name)[:, mine]
    return dataclasses.replace(rollout, **changes)


OPTIONS = {
    "rollout_length": STEPS,
    "minibatch_size": None,
    "learning_rate": 1e-3,
    "normalize_advantages": True,
    "normalize_returns": True,
    "normalize_obs": True,
}
NOT_MEANS = ("explained_variance", "objectives/next_latent/constant")  # Of env steps.
ONE_AT_A_TIME = threading.Lock()  # Random weights are drawn from a generator that threads share.


def make_agent(name="ppo", *, ranks=ALONE, sync_every=None, **options):
    with ONE_AT_A_TIME:
        agent = make_agent_alone(name, num_envs=NUM_ENVS // ranks.size, **options)
    agent.learn_together(Averaging(ranks, sync_every))
    return agent


def wait_for_others(ranks):
    """Wait until all ranks have made their agents: one that learns draws random numbers too."""
    ranks.exchange(None)


def make_agent_alone(name, *, num_envs, objectives=(), memory="none", **options):
    kind, learner = OUR_AGENTS[name]
    config = kind(**{**OPTIONS, **options})
    specs = {"obs": IMAGE} if objectives else {"obs": VECTOR}
    policy = make_policy(specs=specs, memory=memory, normalize_obs=config.normalize_obs)
    configs = {name: OBJECTIVES[name][0]() for name in objectives}
    made = make_objectives(policy, configs, TARGETS)
    return learner(policy, config, num_envs=num_envs, total_updates=8, objectives=made)


def state_of(agent):
    found = {}
    for prefix, module in {"policy": agent.policy, **agent.objectives}.items():
        mine = getattr(module, "of_envs", ())  # Differ between ranks.
        found |= {f"{prefix}/{n}": part for n, part in weights(module).items() if n not in mine}
    for name in ("mean", "variance", "count"):
        found[f"reward_scaler/{name}"] = getattr(agent.reward_scaler, name)
    return found


def learn(agent, rollouts, ranks=ALONE):
    metrics = [agent.update(part_of(rollout, ranks)) for rollout in rollouts]
    return state_of(agent), metrics


def assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=TOLERANCE, atol=TOLERANCE, msg=name)


def assert_learns_like_one(size, count, **options):
    """Check that ranks with a part of the environments each learn what one with all learns."""
    alone = make_agent(**options)
    targets = alone.target_names
    rollouts = [
        make_rollout(alone.policy, STEPS, NUM_ENVS, seed=seed, noise=0.1, targets=targets)
        for seed in range(count)
    ]
    for rollout in rollouts:
        for name in set(targets) & {"DEPTH_0_0", "MONSTER_IN_VIEW_0"}:
            rollout.targets[name][:, 0] = NOT_REPORTED  # An environment of rank 0.
    before = state_of(alone)
    expected, metrics = learn(alone, rollouts)
    assert any(not torch.equal(before[name], expected[name]) for name in before)

    def learn_as(ranks):
        return learn(make_agent(ranks=ranks, **options), rollouts, ranks)

    found = run_ranks(learn_as, size)
    for state, _ in found[1:]:  # Between ranks, no bit differs.
        assert_same(state, found[0][0])
    assert_close(found[0][0], expected)
    for name, value in metrics[-1].items():
        if name not in NOT_MEANS:
            for _, theirs in found:
                assert theirs[-1][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


# What is sent.


@pytest.mark.parametrize("size", [1, 3])
def test_ranks_exchange_what_can_be_written_as_json(size):
    def exchange(ranks):
        mine = {"rank": ranks.rank, "text": EXTREME[ranks.rank], "nothing": None}
        return ranks.exchange(mine), ranks.exchange(ranks.rank == 1)

    for content, flags in run_ranks(exchange, size):
        assert [each["rank"] for each in content] == list(range(size))
        assert [each["text"] for each in content] == EXTREME[:size]
        assert flags == [rank == 1 for rank in range(size)]
    assert ALONE.exchange("alone") == ["alone"]


def test_bytes_come_to_the_first_rank_and_from_it():
    def move(ranks):
        text = EXTREME[ranks.rank].encode()
        return ranks.bring_to_first(text), ranks.from_first(text + b"!" * (1 - ranks.rank))

    first, second = run_ranks(move)
    assert first == ([b"", b"short"], b"!")
    assert second == ([], b"!")


def test_statistics_are_those_of_all_ranks():
    batches = np.random.default_rng(0).normal(3.0, 2.0, size=(2, 3, 5, 4))  # updates, ranks

    def observe(ranks):
        statistics = RunningMeanStd(4)
        Averaging(ranks).statistics([statistics])
        for batch in batches:
            statistics.update(torch.from_numpy(batch[ranks.rank]))
        return weights(statistics)

    for found in run_ranks(observe, 3):
        everything = batches.reshape(-1, 4)
        np.testing.assert_allclose(found["mean"], everything.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found["variance"], everything.var(0), rtol=1e-12)
        assert found["count"] == 30


def test_rewards_are_scaled_by_the_returns_of_all_ranks():
    rewards, dones = torch.randn(2, STEPS, NUM_ENVS), torch.rand(2, STEPS, NUM_ENVS) < 0.2
    alone = RewardScaler(NUM_ENVS, 0.9)
    expected = torch.stack([alone(*each) for each in zip(rewards, dones, strict=True)])

    def scale(ranks):
        scaler = RewardScaler(NUM_ENVS // 2, 0.9)
        Averaging(ranks).statistics([scaler])
        parts = [part.chunk(2, -1)[ranks.rank] for part in (rewards, dones)]
        return torch.stack([scaler(*each) for each in zip(*parts, strict=True)])

    torch.testing.assert_close(torch.cat(run_ranks(scale), -1), expected)


def test_mean_and_deviation_are_those_of_all_numbers():
    numbers = torch.randn(2, 3, 4) * torch.tensor([1.0, 100.0]).view(2, 1, 1)

    def normalize(ranks):
        return Averaging(ranks).mean_and_deviation(numbers[ranks.rank])

    for mean, deviation in run_ranks(normalize):
        assert mean == pytest.approx(np.mean(numbers.numpy()), abs=1e-5)
        assert deviation == pytest.approx(np.std(numbers.numpy(), ddof=1), rel=1e-6)


def test_a_parameter_without_a_gradient_on_all_ranks_gets_none():
    parameters = [torch.zeros(2), torch.zeros(3), torch.zeros(1)]

    def average(ranks):
        gradients = [torch.full((2,), 1.0 + ranks.rank), None, None]
        if ranks.rank:
            gradients[2] = torch.ones(1)
        metrics = {"loss": torch.tensor(float(ranks.rank))}
        return Averaging(ranks).gradients(gradients, metrics, parameters)

    for gradients, metrics in run_ranks(average):
        assert gradients[0].tolist() == [1.5, 1.5]
        assert gradients[1] is None
        assert gradients[2].tolist() == [0.5]
        assert metrics["loss"] == 0.5


# What is learned.


@pytest.mark.parametrize(("name", "memory"), [(n, m) for n in OUR_AGENTS for m in ("none", "gru")])
def test_ranks_with_a_part_of_the_environments_learn_what_one_learns(name, memory):
    assert_learns_like_one(2 if memory == "none" else 3, 3, name=name, memory=memory)


# Those of `distill` are refused: a rank would need the teacher's file.
SHARED = [n for n, (_, kind) in OBJECTIVES.items() if kind.splittable and n != "distill"]


@pytest.mark.parametrize("objective", SHARED)
def test_ranks_learn_every_objective_like_one(objective):
    assert_learns_like_one(2, 2, objectives=(objective,))


def test_all_ranks_skip_the_rest_of_an_update_together():
    rollouts = [make_rollout(make_agent().policy, STEPS, NUM_ENVS)]
    options = {"learning_rate": 0.01, "num_epochs": 20, "target_kl": 0.02, "normalize_obs": False}
    assert_learns_like_one(2, 1, **options)
    every_epoch, _ = learn(make_agent(**{**options, "target_kl": None}), rollouts)
    stopped, _ = learn(make_agent(**options), rollouts)
    assert any(not torch.equal(stopped[name], every_epoch[name]) for name in stopped)


def test_all_ranks_skip_an_update_if_one_of_them_has_a_rollout_that_is_not_finite():
    rollout = make_rollout(make_agent().policy, STEPS, NUM_ENVS)
    rollout.rewards[0, NUM_ENVS - 1] = torch.nan

    def update(ranks):
        agent = make_agent(ranks=ranks)
        before = state_of(agent)
        with pytest.raises(NotFiniteError, match="rewards of the rollout of rank 1 are"):
            agent.update(part_of(rollout, ranks))
        assert_same(state_of(agent), before)

    run_ranks(update)


@pytest.mark.parametrize("sync_every", [None, 2])
def test_all_ranks_undo_an_update_if_the_gradients_of_one_are_not_finite(sync_every):
    rollout = make_rollout(make_agent().policy, STEPS, NUM_ENVS)

    def update(ranks):
        agent = make_agent(ranks=ranks, sync_every=sync_every, normalize_obs=False)
        wait_for_others(ranks)
        before = weights(agent.policy.actor)
        if ranks.rank == 1:
            agent.config.__dict__["value_coef"] = float("nan")
        with pytest.raises(NotFiniteError, match="the gradients are not finite"):
            agent.update(part_of(rollout, ranks))
        assert_same(weights(agent.policy.actor), before)

    run_ranks(update)


# Averages of weights.


@pytest.mark.parametrize("name", OUR_AGENTS)
def test_weights_are_averaged_after_every_so_many_updates(name):
    rollouts = [make_rollout(make_agent().policy, STEPS, NUM_ENVS, seed=s) for s in range(3)]
    # Without statistics, which are shared in each update, ranks learn as if each were alone.
    options = {"name": name, "normalize_returns": False, "normalize_obs": False}

    def train(ranks):
        agent = make_agent(ranks=ranks, sync_every=2, **options)
        wait_for_others(ranks)
        return [learn(agent, [rollout], ranks)[0] for rollout in rollouts]

    def train_separately(ranks):
        agent = make_agent(**options)
        wait_for_others(ranks)
        return [learn(agent, [rollout], ranks)[0] for rollout in rollouts]

    (first, second), apart = run_ranks(train), run_ranks(train_separately)
    for ours, theirs in zip((first, second), apart, strict=True):
        assert_close(ours[0], theirs[0])
    assert_same(first[1], second[1])
    assert any(not torch.equal(first[2][n], second[2][n]) for n in first[2])
    for key, tensor in first[1].items():
        assert_close({key: tensor}, {key: (apart[0][1][key] + apart[1][1][key]) / 2})


def test_ranks_that_learn_separately_may_stop_at_different_minibatches():
    rollout = make_rollout(make_agent().policy, STEPS, NUM_ENVS)
    # As from an older policy: the first minibatch of rank 1 is too far away.
    rollout.logprobs[:, NUM_ENVS // 2 :] -= 1.0
    options = {"num_epochs": 2, "target_kl": 0.1, "normalize_obs": False}

    def update(ranks):
        agent = make_agent(ranks=ranks, sync_every=2, **options)
        wait_for_others(ranks)
        before = weights(agent.policy)
        metrics = agent.update(part_of(rollout, ranks))
        return metrics, all(torch.equal(w, before[n]) for n, w in weights(agent.policy).items())

    (first, is_first_unchanged), (second, is_second_unchanged) = run_ranks(update)
    assert first == second
    assert "grad_norm" in first
    assert not is_first_unchanged
    assert is_second_unchanged


def test_weights_are_averaged_also_after_an_update_that_is_not_finite():
    good = make_rollout(make_agent().policy, STEPS, NUM_ENVS)
    bad = make_rollout(make_agent().policy, STEPS, NUM_ENVS, seed=1)
    bad.rewards[0, NUM_ENVS - 1] = torch.nan

    def train(ranks):
        agent = make_agent(ranks=ranks, sync_every=2, normalize_obs=False)
        wait_for_others(ranks)
        agent.update(part_of(good, ranks))
        apart = weights(agent.policy)
        with pytest.raises(NotFiniteError, match="rewards of the rollout of rank 1 are"):
            agent.update(part_of(bad, ranks))
        return apart, weights(agent.policy)

    (first_apart, first), (second_apart, second) = run_ranks(train)
    assert any(not torch.equal(w, second_apart[n]) for n, w in first_apart.items())
    assert_same(first, second)


# Episodes.


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_the_rollouts_of_all_ranks_are_those_of_one_process(memory):
    def collect(ranks):
        envs = LocalEnvs(COUNTER, 4 // ranks.size, seed_stride=4)
        with ONE_AT_A_TIME:
            policy = make_policy(specs={"obs": VectorSpec(size=2)}, memory=memory)
        sampler = Sampler(envs, policy, rollout_length=16, seed=7, ranks=ranks)
        collected = [sampler.collect() for _ in range(3)]
        sampler.close()
        return collected

    alone, parts = collect(ALONE), run_ranks(collect)
    for i, whole in enumerate(alone):
        for name in ("actions", "rewards", "terminated", "truncated", "episode_starts"):
            found = torch.cat([getattr(part[i].rollout, name) for part in parts], 1)
            assert torch.equal(found, getattr(whole.rollout, name)), name
        found = [(e.seed, e.statistics) for part in parts for e in part[i].episodes]
        assert dict(found) == {e.seed: e.statistics for e in whole.episodes}
    assert sum(len(whole.episodes) for whole in alone) > 4


# torchrun.


def test_ranks_that_are_started_anew_do_not_meet_those_that_died():
    store = dist.HashStore()
    names = [run_ranks(lambda ranks: distributed.met(store, ranks), 3) for _ in range(3)]
    assert all(len(set(each)) == 1 for each in names)
    assert len({each[0] for each in names}) == 3


def test_the_place_is_that_which_torchrun_gives(monkeypatch):
    assert launched_ranks() is None
    with joined_ranks("cpu") as ranks:
        assert ranks is ALONE
    place = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**place, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    ranks = launched_ranks()
    assert (ranks.rank, ranks.size, ranks.local_rank, ranks.local_size) == (3, 4, 1, 2)
    assert ranks.is_group
    assert not ranks.is_first
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(AgentError, match="2 ranks need a GPU each, and this machine has 1; use"):
        joined_ranks("auto").__enter__()


def test_a_rank_that_has_ended_is_reported(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")

    monkeypatch.setattr(dist, "all_reduce", fail)
    with pytest.raises(RankError, match=r"another rank .* has ended.*\(.* closed by peer\)$"):
        distributed.TorchRanks(0, 2).add(torch.zeros(1))


def test_memory_that_is_used_up_is_not_the_fault_of_another_rank(monkeypatch):
    def fail(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(dist, "all_reduce", fail)
    with pytest.raises(torch.OutOfMemoryError):
        distributed.TorchRanks(0, 2).add(torch.zeros(1))
