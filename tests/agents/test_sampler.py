"""Tests of `agents.sampler`, on a world that tells in every number which step it was."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from agents import Sampler, observation_specs
from agents.sampler import single_thread
from envs import EnvConfig, SharedVectorEnv
from perception import VectorSpec
from tests.agents.synthetic import make_policy
from tests.agents.toy import LocalEnvs, counter_length

COUNTER = "tests.agents.toy:Counter-v0"
STEPS, NUM_ENVS, SEED = 11, 4, 100
# Makes actions all but certain, because groups draw random numbers in another order.
CERTAIN = 1e6


def counter_policy(memory, *, certain=True):
    policy = make_policy(specs={"obs": VectorSpec(size=2)}, memory=memory, normalize_obs=True)
    # Seeds are large numbers; without this the policy would not tell two observations apart.
    policy.normalizers["obs"].mean.copy_(torch.tensor([SEED + 8.3, 3.4]))
    policy.normalizers["obs"].variance.fill_(9.0)
    if certain:
        policy.actor.layer.weight.data.mul_(CERTAIN)
    return policy


def play(memory, rollouts, *, num_groups=1, num_workers=2, certain=True):
    """Collect rollouts, copied because each reuses the storage of the one before."""
    policy = counter_policy(memory, certain=certain)
    envs = SharedVectorEnv(EnvConfig(env=COUNTER), NUM_ENVS, num_workers, num_groups)
    with contextlib.closing(envs):
        torch.manual_seed(0)
        sampler = Sampler(envs, policy, rollout_length=STEPS, seed=SEED)
        collected = []
        for _ in range(rollouts):
            fields = vars(sampler.collect())
            copies = {name: part.clone() for name, part in fields.items() if name != "obs"}
            collected.append(copies | {"obs": fields["obs"]["obs"].clone()})
    return policy, collected, sampler.finished_episodes


def lane_history(lane, total):
    """Say what the world shows in one environment, step by step: (seed, step, length)."""
    seed, step, history = SEED + lane, 0, []
    for _ in range(total):
        history.append((seed, step, counter_length(seed)))
        step += 1
        if step == counter_length(seed):
            seed, step = seed + NUM_ENVS, 0
    history.append((seed, step, counter_length(seed)))
    return history


@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
def test_every_field_of_every_step_is_what_happened(memory, num_groups):
    policy, rollouts, finished = play(memory, 3, num_groups=num_groups, certain=False)
    expected_episodes = []
    for lane in range(NUM_ENVS):
        history = lane_history(lane, 3 * STEPS)
        state = policy.initial_state(1)
        rewards_so_far = 0.0
        for index, rollout in enumerate(rollouts):
            assert torch.allclose(rollout["memory_state"][:, lane : lane + 1], state, atol=1e-5)
            for t in range(STEPS):
                where = t, lane
                seed, step, length = history[index * STEPS + t]
                assert rollout["obs"][where].tolist() == [seed, step]
                assert rollout["episode_starts"][where] == (step == 0)
                action = int(rollout["actions"][where])
                assert rollout["rewards"][where] == 10 * step + action
                over = step + 1 == length
                assert rollout["terminated"][where] == (over and seed % 2 == 0)
                assert rollout["truncated"][where] == (over and seed % 2 == 1)

                # Judge the step alone, with a memory that is cleared by hand.
                state = state * 0 if step == 0 else state
                never = torch.zeros(1, 1, dtype=torch.bool)
                now = {"obs": torch.tensor([[[seed, step]]], dtype=torch.float32)}
                with torch.no_grad():
                    distribution, values, state = policy(now, state, never)
                logprob = distribution.log_prob(torch.tensor([[action]]))[0, 0]
                assert torch.isclose(rollout["logprobs"][where], logprob, atol=1e-5)
                assert torch.isclose(rollout["values"][where], values[0, 0], atol=1e-5)

                last = torch.tensor([[seed, length]], dtype=torch.float32)
                value = policy.value({"obs": last}, state, never[0])[0]
                expected = value if over and seed % 2 else torch.zeros(())
                assert torch.isclose(rollout["final_values"][where], expected, atol=1e-5)

                rewards_so_far += 10 * step + action
                if over:
                    expected_episodes.append((rewards_so_far, length))
                    rewards_so_far = 0.0
            seed, step, _ = history[(index + 1) * STEPS]
            after = torch.tensor([[seed, step]], dtype=torch.float32)
            value = policy.value({"obs": after}, state, torch.tensor([step == 0]))[0]
            assert torch.isclose(rollout["last_values"][lane], value, atol=1e-5)
    assert sorted((e["r"], e["l"]) for e in finished) == sorted(expected_episodes)
    # Both kinds of ends, and actions of every kind, were among them.
    ends = torch.cat([rollout["truncated"] for rollout in rollouts]).sum()
    assert 5 < ends < len(expected_episodes) - 5
    assert set(torch.cat([rollout["actions"] for rollout in rollouts]).unique().tolist()) == {
        0,
        1,
        2,
    }


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_rollouts_depend_neither_on_groups_nor_on_workers(memory):
    _, reference, _ = play(memory, 2, num_groups=1, num_workers=1)
    assert len(reference[0]["actions"].unique()) > 1
    assert reference[0]["logprobs"].min() > -1e-3
    for num_groups, num_workers in ((2, 1), (2, 2), (4, 2), (1, 3)):
        _, rollouts, _ = play(memory, 2, num_groups=num_groups, num_workers=num_workers)
        for rollout, expected in zip(rollouts, reference, strict=True):
            for name, part in rollout.items():
                torch.testing.assert_close(part, expected[name], rtol=1e-4, atol=1e-4, msg=name)


def test_the_same_seed_draws_the_same_rollout():
    _, (first,), _ = play("lstm", 1, certain=False)
    _, (again,), _ = play("lstm", 1, certain=False)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_environments_of_this_process_tell_the_same_as_workers():
    policy, (expected,), _ = play("lstm", 1)
    torch.manual_seed(0)
    sampler = Sampler(LocalEnvs(COUNTER, NUM_ENVS), policy, rollout_length=STEPS, seed=SEED)
    rollout = sampler.collect()
    assert torch.equal(rollout.obs["obs"], expected["obs"])
    for name, part in vars(rollout).items():
        if name != "obs":
            torch.testing.assert_close(part, expected[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("actions", ["Discrete", "MultiDiscrete", "MultiBinary", "Box"])
def test_actions_reach_the_world_as_they_are_kept(actions):
    envs = LocalEnvs(f"tests.agents.toy:Identity{actions}-v0", 3)
    space = envs.single_action_space
    policy = make_policy(specs=observation_specs(envs.single_observation_space, {}), actions=space)
    sent = []
    send = envs.send
    envs.send = lambda group, chosen: (sent.append(chosen.copy()), send(group, chosen))
    rollout = Sampler(envs, policy, rollout_length=5, seed=0).collect()
    assert rollout.actions.shape == (5, 3, *(space.shape or ()))
    assert rollout.actions.dtype == (torch.float32 if actions == "Box" else torch.int64)
    np.testing.assert_array_equal(rollout.actions.numpy(), np.stack(sent))


def test_torch_has_its_threads_again_after_a_rollout():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with single_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), single_thread():
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
