"""Tests of `agents.sampler`, on environments in which every number identifies its step."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from agents import AgentError, Sampler, observation_specs
from agents.device import single_thread
from envs import EnvConfig, SharedVectorEnv, StoppedError
from perception import MEMORIES, VectorSpec
from tests.agents.synthetic import assert_same, assert_same_episodes, make_policy
from tests.agents.toy import ACTION_SPACES, LocalEnvs, counter_length, gauge_info

COUNTER, GAUGE = "tests.agents.toy:Counter-v0", "tests.agents.toy:Gauge-v0"
STEPS, NUM_ENVS, SEED = 11, 4, 100


def counter_policy(memory):
    policy = make_policy(specs={"obs": VectorSpec(size=2)}, memory=memory, normalize_obs=True)
    # Seeds are large numbers; without normalisation all observations would be about the same.
    normalizer = policy.perception.encoders["obs"].normalizer
    normalizer.mean.copy_(torch.tensor([SEED + 8.3, 3.4]))
    normalizer.variance.fill_(9.0)
    return policy


def collect(envs, policy, rollouts, **options):
    """Return copies of rollouts, and the statistics of the episodes that ended in them."""
    sampler = Sampler(envs, policy, rollout_length=STEPS, seed=SEED, **options)
    collected, finished = [], []
    for _ in range(rollouts):
        got = sampler.collect()
        finished += [episode.statistics for episode in got.episodes]
        collected.append({name: part.clone() for name, part in tensors(got.rollout).items()})
    return collected, finished


def tensors(rollout):
    """Return the tensors of a rollout by name; observations have one part, `obs`."""
    return {name.removesuffix("/obs"): part for name, part in rollout.tensors().items()}


def collect_from_workers(policy, rollouts, num_groups, num_workers):
    envs = SharedVectorEnv(EnvConfig(env=COUNTER), NUM_ENVS, num_workers, num_groups)
    with contextlib.closing(envs):
        return collect(envs, policy, rollouts)[0]


def lane_history(lane, total, num_envs=NUM_ENVS):
    """Return (seed, step, length) of one environment before each env step."""
    seed, step, history = SEED + lane, 0, []
    for _ in range(total):
        history.append((seed, step, counter_length(seed)))
        step += 1
        if step == counter_length(seed):
            seed, step = seed + num_envs, 0
    history.append((seed, step, counter_length(seed)))
    return history


@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize("memory", MEMORIES)
def test_every_field_of_every_step_is_right(memory, num_groups):
    policy = counter_policy(memory)
    rollouts, finished = collect(LocalEnvs(COUNTER, NUM_ENVS, num_groups), policy, 3)
    expected_episodes = []
    for lane in range(NUM_ENVS):
        history = lane_history(lane, 3 * STEPS)
        state = policy.initial_state(1)
        rewards_so_far = 0.0
        for index, rollout in enumerate(rollouts):
            assert torch.allclose(rollout["memory_state"][:, lane : lane + 1], state, atol=1e-5)
            for t in range(STEPS):
                place = t, lane
                seed, step, length = history[index * STEPS + t]
                assert rollout["obs"][place].tolist() == [seed, step]
                assert rollout["episode_starts"][place] == (step == 0)
                action = int(rollout["actions"][place])
                assert rollout["rewards"][place] == 10 * step + action
                over = step + 1 == length
                assert rollout["terminated"][place] == (over and seed % 2 == 0)
                assert rollout["truncated"][place] == (over and seed % 2 == 1)

                # The same step alone, with a memory state that is cleared here.
                state = state * 0 if step == 0 else state
                never = torch.zeros(1, 1, dtype=torch.bool)
                now = {"obs": torch.tensor([[[seed, step]]], dtype=torch.float32)}
                with torch.no_grad():
                    output = policy(now, state, never)
                state = output.memory_state
                logprob = output.distribution.log_prob(torch.tensor([[action]]))[0, 0]
                assert torch.isclose(rollout["logprobs"][place], logprob, atol=1e-5)
                assert torch.isclose(rollout["values"][place], output.values[0, 0], atol=1e-5)

                last = torch.tensor([[seed, length]], dtype=torch.float32)
                value = policy.value({"obs": last}, state, never[0])[0]
                expected = value if over and seed % 2 else torch.zeros(())
                assert torch.isclose(rollout["final_values"][place], expected, atol=1e-5)
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
    # Both kinds of ends, and all actions, have occurred.
    ends = torch.cat([rollout["truncated"] for rollout in rollouts]).sum()
    assert 5 < ends < len(expected_episodes) - 5
    actions = torch.cat([rollout["actions"] for rollout in rollouts])
    assert set(actions.unique().tolist()) == {0, 1, 2}


@pytest.mark.parametrize(("num_groups", "num_workers"), [(1, 2), (2, 1), (4, 2)])
def test_rollouts_do_not_depend_on_the_numbers_of_groups_and_workers(num_groups, num_workers):
    policy = counter_policy("lstm")
    reference, _ = collect(LocalEnvs(COUNTER, NUM_ENVS), policy, 2)
    assert len(reference[0]["actions"].unique()) > 1
    rollouts = collect_from_workers(policy, 2, num_groups, num_workers)
    for rollout, expected in zip(rollouts, reference, strict=True):
        if num_groups == 1:
            assert_same(rollout, expected)
        for name, part in rollout.items():  # Products of other sizes are rounded differently.
            torch.testing.assert_close(part, expected[name], rtol=1e-4, atol=1e-4, msg=name)


def test_the_same_seed_results_in_the_same_rollout():
    policy = counter_policy("lstm")
    torch.manual_seed(1)
    (first,), _ = collect(LocalEnvs(COUNTER, NUM_ENVS), policy, 1)
    torch.manual_seed(2)
    (again,), _ = collect(LocalEnvs(COUNTER, NUM_ENVS), policy, 1)
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
    # With `last_sent`, one group finishes its whole rollout before the next one starts.
    for seed, ready in enumerate((last_sent, any_of(0), any_of(1))):
        torch.manual_seed(seed)
        rollouts, also_finished = collect(LocalEnvs(COUNTER, 8, 4, ready), policy, 3)
        for rollout, other in zip(rollouts, expected, strict=True):
            assert_same(rollout, other)
        assert also_finished == finished
    # Episodes are in the order in which they ended; those of the same step, by environment.
    lanes = {lane: lane_history(lane, 3 * STEPS, 8) for lane in range(8)}
    ends = sorted(
        (t, lane, length)
        for lane, history in lanes.items()
        for t, (_, step, length) in enumerate(history[:-1])
        if step + 1 == length
    )
    assert [length for _, _, length in ends] == [episode["l"] for episode in finished]


def test_torchs_global_generator_is_not_used():
    policy = counter_policy("lstm")
    before = torch.get_rng_state()
    collect(LocalEnvs(COUNTER, 4, 2), policy, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_rollout_has_new_draws():
    policy = make_policy(specs={"obs": VectorSpec(size=1)})
    (first, second), _ = collect(LocalEnvs("tests.agents.toy:Truncated-v0", 4), policy, 2)
    assert not torch.equal(first["actions"], second["actions"])
    sampler = Sampler(
        LocalEnvs("tests.agents.toy:Truncated-v0", 4), policy, rollout_length=STEPS, seed=SEED + 1
    )
    assert not torch.equal(sampler.collect().rollout.actions, first["actions"])


def test_version_and_next_episode_seed():
    policy = counter_policy("none")
    sampler = Sampler(LocalEnvs(COUNTER, 4, 2), policy, rollout_length=STEPS, seed=SEED)
    for version in (3, 4, 5):
        collected = sampler.collect(version)
        assert collected.version == version
        largest = int(collected.rollout.obs["obs"][..., 0].max())
        current = int(sampler.envs.episode_seeds.max())
        assert largest <= current < collected.next_episode_seed <= current + 4


def test_each_rollout_is_collected_with_the_current_weights():
    policy = make_policy(specs={"obs": VectorSpec(size=1)})
    sampler = Sampler(
        LocalEnvs("tests.agents.toy:Truncated-v0", 4), policy, rollout_length=STEPS, seed=0
    )
    bias = policy.critic.bias
    before = sampler.collect().rollout.values.clone()
    bias.data.add_(5.0)
    torch.testing.assert_close(sampler.collect().rollout.values, before + 5.0)
    bias.data.add_(5.0)
    # `run` uses the weights that were copied last.
    torch.testing.assert_close(sampler.run().rollout.values, before + 5.0)


def test_a_rollout_stays_valid_until_its_buffer_is_reused():
    policy = counter_policy("lstm")
    expected, _ = collect(LocalEnvs(COUNTER, 4), policy, 3)
    sampler = Sampler(LocalEnvs(COUNTER, 4), policy, rollout_length=STEPS, seed=SEED, num_buffers=2)
    kept = [sampler.collect().rollout for _ in range(3)]
    for rollout, other in zip(kept[1:], expected[1:], strict=True):
        assert_same(tensors(rollout), other)
    assert kept[0].values.data_ptr() == kept[2].values.data_ptr()


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_stored_actions_are_those_sent_to_the_environments(actions):
    envs = LocalEnvs(f"tests.agents.toy:Identity{actions}-v0", 3)
    space = envs.single_action_space
    policy = make_policy(specs=observation_specs(envs.single_observation_space, {}), actions=space)
    sent = []
    send = envs.send

    def recorded_send(group, chosen, **options):
        sent.append(chosen.copy())
        send(group, chosen, **options)

    envs.send = recorded_send
    rollout = Sampler(envs, policy, rollout_length=5, seed=0).collect().rollout
    assert rollout.actions.shape == (5, 3, *(space.shape or ()))
    assert rollout.actions.dtype == (torch.float32 if actions == "Box" else torch.int64)
    np.testing.assert_array_equal(rollout.actions.numpy(), np.stack(sent))


def test_the_number_of_threads_is_restored():
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


@pytest.mark.parametrize(
    ("config", "memory"),
    [
        (EnvConfig(env="CartPole-v1"), "lstm"),
        (EnvConfig(env="Pendulum-v1"), "none"),
        (EnvConfig(env="defend_the_center", frame_stack=2, variables=True, time_limit=60), "gru"),
    ],
    ids=lambda value: getattr(value, "env", value),
)
def test_a_sampler_resumes_from_the_state_of_another(config, memory):
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


def test_episodes_that_cannot_be_restored_are_replaced_by_the_next_ones():
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


def test_lost_episodes_are_truncated_and_do_not_count():
    envs = SharedVectorEnv(EnvConfig(env="tests.envs.toy:Raising-v0"), 2)
    with contextlib.closing(envs):
        policy = make_policy(specs={"obs": VectorSpec(size=3)}, actions=envs.single_action_space)
        got = Sampler(envs, policy, rollout_length=6, seed=20).collect()
    assert got.episodes == []
    assert got.rollout.rewards.tolist() == [[1, 1], [2, 2], [0, 0]] * 2
    assert got.rollout.truncated[:, 0].tolist() == [False, False, True] * 2
    assert not got.rollout.terminated.any()
    assert got.rollout.episode_starts[:, 0].tolist() == [True, False, False] * 2
    # The value to bootstrap from is that of the last observation, which is that before the action.
    torch.testing.assert_close(got.rollout.final_values[2], got.rollout.values[2])


SIZE = {"height": 36, "width": 40}


def expected_targets(obs):
    """Return the infos of (..., 36, 40, 1) observations of `Gauge`, by name."""
    seeds, steps = obs[..., 0, 0, 0], obs[..., 0, 1, 0]
    infos = [gauge_info(*pair) for pair in torch.stack((seeds, steps), -1).view(-1, 2).tolist()]
    return {
        name: torch.tensor([info[name] for info in infos]).view(seeds.shape) for name in infos[0]
    }


@pytest.mark.parametrize("num_groups", [1, 4])
def test_targets_are_the_infos_of_the_observations_of_the_same_step(num_groups):
    envs = LocalEnvs(GAUGE, NUM_ENVS, num_groups, last_sent, **SIZE)
    specs = observation_specs(envs.single_observation_space, {})
    policy = make_policy(specs=specs, encoder="mlp")
    names = ("HEALTH", "ENEMY_IN_VIEW")
    rollouts, _ = collect(envs, policy, 3, targets=names)
    for rollout in rollouts:
        expected = expected_targets(rollout["obs"])
        for name in names:
            assert rollout[f"targets/{name}"].dtype == torch.float32
            assert torch.equal(rollout[f"targets/{name}"], expected[name]), name
            assert len(expected[name].unique()) > 1


def test_workers_report_the_same_targets_before_and_after_resuming():
    with contextlib.ExitStack() as stack:

        def make_sampler(seed):
            config = EnvConfig(env="health_gathering", variables=True, **SIZE)
            envs = stack.enter_context(contextlib.closing(SharedVectorEnv(config, NUM_ENVS, 1, 2)))
            specs = observation_specs(envs.single_observation_space, envs.metadata)
            actions = envs.single_action_space
            policy = make_policy(specs=specs, actions=actions, encoder="mlp")
            sampler = Sampler(envs, policy, rollout_length=STEPS, seed=seed, targets=["HEALTH"])
            return stack.enter_context(contextlib.closing(sampler))

        whole, resumed = make_sampler(SEED), make_sampler(SEED + 50)
        whole.collect()
        state = {name: part.clone() for name, part in whole.state().items()}
        whole.collect()
        for lost in (0, 1):
            state["obs/screen"][:lost, 5, 5] += 1  # An episode is lost, and the next one starts.
            assert resumed.load_state(state) == lost
            for sampler in (whole, resumed):
                rollout = sampler.collect().rollout
                # It is a part of the observation, too: as a share of 100.
                expected = 100 * rollout.obs["variables"][..., 0]
                torch.testing.assert_close(rollout.targets["HEALTH"], expected)


def test_infos_are_not_requested_without_targets():
    envs = LocalEnvs(GAUGE, NUM_ENVS, **SIZE)
    specs = observation_specs(envs.single_observation_space, {})
    (rollout,), _ = collect(envs, make_policy(specs=specs, encoder="mlp"), 1)
    assert np.isnan(envs.current_info(0)).all()
    assert not any(name.startswith("targets") for name in rollout)


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_environments_that_return_tensors_give_the_same_rollout(memory):
    policy = counter_policy(memory)
    expected, finished = collect(LocalEnvs(COUNTER, NUM_ENVS, 2), policy, 2)
    envs = LocalEnvs(COUNTER, NUM_ENVS, 2, as_array=torch.from_numpy)
    rollouts, also_finished = collect(envs, policy, 2)
    for rollout, other in zip(rollouts, expected, strict=True):
        assert_same(rollout, other)
    assert also_finished == finished


def wrong_states():
    """Return changes of a state that no sampler returned, by what is wrong."""
    return {
        "nothing": lambda state: state.clear(),
        "more": lambda state: state.update(more=torch.zeros(1)),
        **{
            f"no {name}": lambda state, name=name: state.pop(name)
            for name in (
                "generator",
                "starts",
                "memory_state",
                "episode_seeds",
                "obs/obs",
                "actions/0",
            )
        },
        "other starts": lambda state: state.update(starts=state["starts"][:1]),
        "numbers for starts": lambda state: state.update(starts=state["starts"].float()),
        "another memory": lambda state: state.update(memory_state=torch.zeros(1)),
        "other observations": lambda state: state.update({"obs/obs": torch.zeros(1, 2)}),
        "actions of another type": lambda state: state.update(
            {"actions/0": state["actions/0"].double()}
        ),
        "actions of another shape": lambda state: state.update(
            {"actions/0": torch.zeros(3, 3).long()}
        ),
        "more actions than rewards": lambda state: state.update(
            {"actions/0": torch.zeros(999, dtype=torch.int64)}
        ),
        "a seed below zero": lambda state: state["episode_seeds"].fill_(-1),
        "a seed beyond the last": lambda state: state["episode_seeds"].fill_(2**31),
        "a generator of one byte": lambda state: state.update(
            generator=torch.zeros(1, dtype=torch.uint8)
        ),
        "a generator of zeros": lambda state: state["generator"].zero_(),
    }


@pytest.mark.parametrize("name", wrong_states())
def test_a_state_that_no_sampler_returned_is_refused(name):
    envs = LocalEnvs(COUNTER, NUM_ENVS, 2)
    with contextlib.closing(
        Sampler(envs, counter_policy("lstm"), rollout_length=4, seed=SEED)
    ) as s:
        s.collect()
        state = {name: part.clone() for name, part in s.state().items()}
        wrong_states()[name](state)
        with pytest.raises(AgentError, match="start over with --fresh") as error:
            s.load_state(state)
        assert "\n" not in str(error.value)


class InterruptedEnvs(LocalEnvs):
    """Environments that are no longer waited for after a number of results."""

    left = 1000

    def receive(self, group):
        self.left -= 1
        if self.left < 0:
            raise StoppedError
        return super().receive(group)


@pytest.mark.parametrize("left", [0, 1, 2 * STEPS - 1])
def test_the_state_of_an_interrupted_rollout_is_the_one_before_it(left):
    envs = InterruptedEnvs(COUNTER, NUM_ENVS, 2)
    sampler = Sampler(envs, counter_policy("lstm"), rollout_length=STEPS, seed=SEED)
    sampler.collect()
    before = {name: part.clone() for name, part in sampler.state().items()}
    envs.left = left
    with pytest.raises(StoppedError):
        sampler.collect()
    assert_same(sampler.state(), before)
