"""Tests of `agents.sampler`, on a world that tells in every number which step it was."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from agents import Sampler, observation_specs
from agents.device import single_thread
from envs import EnvConfig, SharedVectorEnv
from perception import VectorSpec
from tests.agents.synthetic import assert_same, assert_same_episodes, make_policy
from tests.agents.toy import LocalEnvs, counter_length

COUNTER = "tests.agents.toy:Counter-v0"
STEPS, NUM_ENVS, SEED = 11, 4, 100


def counter_policy(memory):
    policy = make_policy(specs={"obs": VectorSpec(size=2)}, memory=memory, normalize_obs=True)
    # Seeds are large numbers; without this the policy would not tell two observations apart.
    policy.perception.normalizers["obs"].mean.copy_(torch.tensor([SEED + 8.3, 3.4]))
    policy.perception.normalizers["obs"].variance.fill_(9.0)
    return policy


def collect(envs, policy, rollouts):
    """Collect rollouts, copied because each reuses the storage of the one before; and episodes."""
    sampler = Sampler(envs, policy, rollout_length=STEPS, seed=SEED)
    collected, finished = [], []
    for _ in range(rollouts):
        got = sampler.collect()
        finished += [episode.statistics for episode in got.episodes]
        collected.append({name: part.clone() for name, part in tensors(got.rollout).items()})
    return collected, finished


def tensors(rollout):
    """Return a rollout's tensors by name; observations have one part, `obs`."""
    return {name.removesuffix("/obs"): part for name, part in rollout.tensors().items()}


def play(memory, rollouts, *, num_groups=1, num_workers=2):
    policy = counter_policy(memory)
    envs = SharedVectorEnv(EnvConfig(env=COUNTER), NUM_ENVS, num_workers, num_groups)
    with contextlib.closing(envs):
        return policy, *collect(envs, policy, rollouts)


def lane_history(lane, total, num_envs=NUM_ENVS):
    """Say what the world shows in one environment, step by step: (seed, step, length)."""
    seed, step, history = SEED + lane, 0, []
    for _ in range(total):
        history.append((seed, step, counter_length(seed)))
        step += 1
        if step == counter_length(seed):
            seed, step = seed + num_envs, 0
    history.append((seed, step, counter_length(seed)))
    return history


@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
def test_every_field_of_every_step_is_what_happened(memory, num_groups):
    policy, rollouts, finished = play(memory, 3, num_groups=num_groups)
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
                cut = (rollout["final_steps"] == t) & (rollout["final_lanes"] == lane)
                assert cut.sum() == (over and seed % 2)
                assert (rollout["final_obs"][cut] == last).all()

                rewards_so_far += 10 * step + action
                if over:
                    expected_episodes.append((rewards_so_far, length))
                    rewards_so_far = 0.0
            seed, step, _ = history[(index + 1) * STEPS]
            after = torch.tensor([[seed, step]], dtype=torch.float32)
            value = policy.value({"obs": after}, state, torch.tensor([step == 0]))[0]
            assert torch.isclose(rollout["last_values"][lane], value, atol=1e-5)
            assert torch.equal(rollout["last_obs"][lane], after[0])
            assert rollout["last_starts"][lane] == (step == 0)
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
    for num_groups, num_workers in ((2, 1), (2, 2), (4, 2), (1, 3)):
        _, rollouts, _ = play(memory, 2, num_groups=num_groups, num_workers=num_workers)
        for rollout, expected in zip(rollouts, reference, strict=True):
            for name, part in rollout.items():
                torch.testing.assert_close(part, expected[name], rtol=1e-4, atol=1e-4, msg=name)


def test_the_same_seed_draws_the_same_rollout():
    torch.manual_seed(1)
    _, (first,), _ = play("lstm", 1)
    torch.manual_seed(2)
    _, (again,), _ = play("lstm", 1)
    assert_same(first, again)


def last_sent(sent):
    return sent[-1]


def any_of(seed):
    rng = np.random.default_rng(seed)
    return lambda sent: sent[rng.integers(len(sent))]


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_rollouts_do_not_depend_on_which_group_is_ready_first(memory):
    policy = counter_policy(memory)
    expected, finished = collect(LocalEnvs(COUNTER, 8, 4), policy, 3)
    # The last one sent: one group plays its whole rollout before another is looked at.
    for seed, ready in enumerate((last_sent, any_of(0), any_of(1))):
        torch.manual_seed(seed)
        rollouts, also_finished = collect(LocalEnvs(COUNTER, 8, 4, ready), policy, 3)
        for rollout, other in zip(rollouts, expected, strict=True):
            assert_same(rollout, other)
        assert also_finished == finished
    # Episodes are told in the order in which they ended, of the same step by environment.
    lanes = {lane: lane_history(lane, 3 * STEPS, 8) for lane in range(8)}
    ends = sorted(
        (t, lane, length)
        for lane, history in lanes.items()
        for t, (_, step, length) in enumerate(history[:-1])
        if step + 1 == length
    )
    assert [length for _, _, length in ends] == [episode["l"] for episode in finished]


def test_torchs_own_generator_is_left_alone():
    policy = counter_policy("lstm")
    before = torch.get_rng_state()
    collect(LocalEnvs(COUNTER, 4, 2), policy, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_rollout_draws_anew():
    policy = make_policy(specs={"obs": VectorSpec(size=1)})
    (first, second), _ = collect(LocalEnvs("tests.agents.toy:Truncated-v0", 4), policy, 2)
    assert not torch.equal(first["actions"], second["actions"])
    sampler = Sampler(
        LocalEnvs("tests.agents.toy:Truncated-v0", 4), policy, rollout_length=STEPS, seed=SEED + 1
    )
    assert not torch.equal(sampler.collect().rollout.actions, first["actions"])


def test_what_is_brought_home_says_by_which_weights_and_what_seed_comes_next():
    policy = counter_policy("none")
    sampler = Sampler(LocalEnvs(COUNTER, 4, 2), policy, rollout_length=STEPS, seed=SEED)
    for version in (3, 4, 5):
        collected = sampler.collect(version)
        assert collected.version == version
        seen = int(collected.rollout.obs["obs"][..., 0].max())
        running = int(sampler.envs.episode_seeds.max())
        assert seen <= running < collected.next_episode_seed <= running + 4


def test_each_rollout_is_played_with_the_weights_of_its_moment():
    policy = make_policy(specs={"obs": VectorSpec(size=1)})
    sampler = Sampler(
        LocalEnvs("tests.agents.toy:Truncated-v0", 4), policy, rollout_length=STEPS, seed=0
    )
    bias = policy.critic.bias
    before = sampler.collect().rollout.values.clone()
    bias.data.add_(5.0)
    torch.testing.assert_close(sampler.collect().rollout.values, before + 5.0)
    bias.data.add_(5.0)
    torch.testing.assert_close(sampler.play().rollout.values, before + 5.0)


def test_a_rollout_stays_until_its_place_is_needed():
    policy = counter_policy("lstm")
    expected, _ = collect(LocalEnvs(COUNTER, 4), policy, 3)
    sampler = Sampler(LocalEnvs(COUNTER, 4), policy, rollout_length=STEPS, seed=SEED, num_buffers=2)
    kept = [sampler.collect().rollout for _ in range(3)]
    for rollout, other in zip(kept[1:], expected[1:], strict=True):
        assert_same(tensors(rollout), other)
    assert kept[0].values.data_ptr() == kept[2].values.data_ptr()


def test_environments_of_this_process_tell_the_same_as_workers():
    policy, (expected,), _ = play("lstm", 1)
    (rollout,), _ = collect(LocalEnvs(COUNTER, NUM_ENVS), policy, 1)
    assert_same(rollout, expected)


@pytest.mark.parametrize("actions", ["Discrete", "MultiDiscrete", "MultiBinary", "Box"])
def test_actions_reach_the_world_as_they_are_kept(actions):
    envs = LocalEnvs(f"tests.agents.toy:Identity{actions}-v0", 3)
    space = envs.single_action_space
    policy = make_policy(specs=observation_specs(envs.single_observation_space, {}), actions=space)
    sent = []
    send = envs.send
    envs.send = lambda group, chosen: (sent.append(chosen.copy()), send(group, chosen))
    rollout = Sampler(envs, policy, rollout_length=5, seed=0).collect().rollout
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


def copied(rollout):
    return {name: part.clone() for name, part in rollout.tensors().items()}


@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize(
    "config",
    [
        EnvConfig(env="CartPole-v1"),
        EnvConfig(env="Pendulum-v1"),
        EnvConfig(env="defend_the_center", frame_stack=2, variables=True, time_limit=60),
    ],
    ids=lambda config: config.env,
)
def test_what_was_saved_between_two_rollouts_is_gone_on_with(config, memory):
    def make_sampler(seed):
        envs = stack.enter_context(contextlib.closing(SharedVectorEnv(config, 4, 2, 2)))
        specs = observation_specs(envs.single_observation_space, envs.metadata)
        policy = make_policy(specs=specs, actions=envs.single_action_space, memory=memory)
        return stack.enter_context(
            contextlib.closing(Sampler(envs, policy, rollout_length=9, seed=seed))
        )

    with contextlib.ExitStack() as stack:
        whole, resumed = make_sampler(5), make_sampler(77)
        whole.collect()
        whole.collect()
        state = {name: part.clone() for name, part in whole.state().items()}
        assert resumed.load_state(state) == 0
        for _ in range(2):
            one, other = whole.collect(), resumed.collect()
            assert_same(copied(other.rollout), copied(one.rollout))
            assert_same_episodes(other.episodes, one.episodes)
            assert other.next_episode_seed == one.next_episode_seed
            assert_same(resumed.state(), whole.state())


def test_episodes_that_do_not_come_out_the_same_are_left_for_the_next_ones():
    with contextlib.closing(SharedVectorEnv(EnvConfig(env=COUNTER), NUM_ENVS)) as envs:
        sampler = Sampler(envs, counter_policy("lstm"), rollout_length=STEPS, seed=SEED)
        sampler.collect()
        state = sampler.state()
        before = state["episode_seeds"].tolist()
        state["obs/obs"] = state["obs/obs"].clone()
        state["obs/obs"][2] += 1
        assert sampler.load_state(state) == 1
        before[2] += NUM_ENVS
        assert envs.episode_seeds.tolist() == before
        rollout = sampler.collect().rollout
        assert rollout.episode_starts[0, 2]
        assert rollout.obs["obs"][0, 2].tolist() == [before[2], 0]


def test_lost_episodes_are_learned_from_as_cut_off_and_counted_for_nothing():
    envs = SharedVectorEnv(EnvConfig(env="tests.envs.toy:Raising-v0"), 2)
    with contextlib.closing(envs):
        policy = make_policy(specs={"obs": VectorSpec(size=3)}, actions=envs.single_action_space)
        got = Sampler(envs, policy, rollout_length=6, seed=20).collect()
    assert got.episodes == []
    assert got.rollout.rewards.tolist() == [[1, 1], [2, 2], [0, 0]] * 2
    assert got.rollout.truncated[:, 0].tolist() == [False, False, True] * 2
    assert not got.rollout.terminated.any()
    assert got.rollout.episode_starts[:, 0].tolist() == [True, False, False] * 2
    # Bootstrapped by the value of what was seen last, which is what was acted on.
    torch.testing.assert_close(got.rollout.final_values[2], got.rollout.values[2])
