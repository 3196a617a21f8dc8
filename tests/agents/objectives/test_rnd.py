"""Tests of `agents.objectives.rnd`."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces

from agents import PPO, Policy, PPOConfig, Sampler, make_objectives
from agents.objectives import RND, RNDConfig
from agents.rollout import Rollout
from perception import PerceptionConfig, VectorSpec
from perception.encoders import VectorConfig
from tests.agents.synthetic import IMAGE, VECTOR, make_policy, make_rollout
from tests.agents.toy import LocalEnvs

SPECS = {"screen": IMAGE, "variables": VECTOR}
PLACES = 20
RIGHT = torch.rand(PLACES, generator=torch.Generator().manual_seed(0)) < 0.5


def make_small_policy():
    """Return a policy that observes which of 20 places it is at, and has two actions."""
    torch.manual_seed(0)
    config = PerceptionConfig(vectors=VectorConfig(hidden_sizes=(32,)))
    return Policy({"obs": VectorSpec(size=PLACES)}, spaces.Discrete(2), config)


def test_what_was_seen_is_no_longer_new_and_all_else_is():
    policy = make_small_policy()
    objective = RND(policy, RNDConfig(hidden_size=32, embedding_size=16), ())
    optimizer = torch.optim.Adam(objective.predictor.parameters(), 3e-3)
    numbers = torch.eye(PLACES)
    seen = numbers[torch.arange(256) % 5]
    objective.seen.update(seen)
    normal = objective.normalized(numbers)
    before = objective.novelty(normal).detach()
    for _ in range(100):
        optimizer.zero_grad()
        objective.novelty(objective.normalized(seen)).mean().backward()
        optimizer.step()
    after = objective.novelty(normal).detach()
    assert (after[:5] < 0.02 * before[:5]).all()
    assert (after[5:] > 0.1 * before[5:]).all()
    assert after[5:].min() > 20 * after[:5].max()


def make_objective(num_envs=3, **options):
    policy = make_policy(specs=SPECS)
    objective = RND(policy, RNDConfig(**options), ())
    objective.set_num_envs(num_envs)
    return policy, objective


def with_targets(objective, policy, rollout):
    return replace(rollout, targets=objective.targets_of(policy, rollout))


def test_the_target_is_fixed_and_predictor_and_critic_learn():
    policy, objective = make_objective()
    rollout = with_targets(objective, policy, make_rollout(policy, 4, 3))
    loss, metrics = objective.loss(policy, None, rollout)
    loss.backward()
    assert metrics["reward"] > 0
    assert not any(p.requires_grad for p in objective.target.parameters())
    for learned in (objective.predictor, objective.critic):
        assert all(p.grad.any() for p in learned.parameters())
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_the_critic_learns_the_returns():
    policy, objective = make_objective()
    rollout = with_targets(objective, policy, make_rollout(policy, 8, 3))
    optimizer = torch.optim.Adam(objective.critic.parameters(), 1e-3)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss, metrics = objective.loss(policy, None, rollout)
        loss.backward()
        optimizer.step()
        losses.append(float(metrics["value_loss"].detach()))
    assert losses[-1] < 0.05 * losses[0]


def test_rewards_advantages_and_returns_equal_hand_written_ones():
    """Over two rollouts, because statistics continue from one to the next."""
    policy, objective = make_objective(reward_coef=0.3, reward_gamma=0.8, cell_size=6)
    observed, sums, running = [], [], torch.zeros(3)
    for seed in range(2):
        rollout = with_targets(objective, policy, make_rollout(policy, 5, 3, seed=seed))
        every = [{name: rollout.obs[name][t] for name in SPECS} for t in range(5)]
        every.append(rollout.last_obs)
        images = [objective.thumbnails.flat(obs) for obs in every]
        vectors = [obs["variables"] for obs in every]
        numbers = torch.cat((torch.stack(images), torch.stack(vectors)), -1)
        observed.append(numbers[1:].flatten(0, 1))
        everything = torch.cat(observed).double()
        deviation = (everything.var(0, correction=0) + 1e-8).sqrt()
        normal = ((numbers - everything.mean(0)) / deviation).clamp(-5, 5).float()
        with torch.no_grad():
            errors = objective.predictor(normal) - objective.target(normal)
            values = objective.critic(normal)[..., 0]
        error = errors[1:].square().mean(-1)
        for t in range(5):
            running = 0.8 * running + error[t]
            sums.append(running)
        rewards = error / torch.stack(sums).std(correction=0)
        # The sum of (gamma lambda)^k delta_t+k, whether episodes ended or not.
        deltas = rewards + 0.8 * values[1:] - values[:-1]
        advantages = torch.stack(
            [sum((0.8 * 0.95) ** k * deltas[t + k] for k in range(5 - t)) for t in range(5)]
        )
        expected = {"rewards": rewards, "advantages": advantages}
        expected["returns"] = advantages + values[:-1]
        for name, right in expected.items():
            torch.testing.assert_close(rollout.targets[f"rnd/{name}"], right, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            objective.advantages(rollout), 0.3 * advantages, rtol=1e-3, atol=1e-4
        )


def test_an_end_costs_no_novelty():
    """If it did, it would pay to stay in the episode, whatever its end is worth."""
    found = []
    for ends in (False, True):
        torch.manual_seed(0)
        policy, objective = make_objective()
        rollout = make_rollout(policy, 6, 3)
        rollout.terminated.fill_(ends)
        rollout.truncated.fill_(False)
        found.append(objective.advantages(with_targets(objective, policy, rollout)))
    assert torch.equal(*found)


def test_the_rewards_need_the_last_observations():
    policy, objective = make_objective(2)
    rollout = make_rollout(policy, 2, 2)
    fields = ("last_obs", "last_starts", "final_obs", "final_steps", "final_lanes")
    without = Rollout(**{**vars(rollout), **dict.fromkeys(fields)})
    with pytest.raises(ValueError, match=r"^the objective rnd needs the last observations"):
        objective.targets_of(policy, without)


def collect(policy, places, steps_done):
    """Return a rollout in 64 locks of 20 places, and places and lengths of episodes after it.

    The right action leads to the next place, the other back to the first one. The reward is 1 for
    reaching the last place, which ends an episode; after 40 env steps, time runs out.
    """
    record, starts, empty = {}, steps_done == 0, torch.zeros(0, len(places), 0)
    for _ in range(PLACES):
        obs = F.one_hot(places, PLACES).float()
        decision = policy.act({"obs": obs}, empty, starts, torch.rand(len(places), 1))
        is_right = decision.actions.bool() == RIGHT[places]
        places, steps_done = torch.where(is_right, places + 1, 0), steps_done + 1
        terminated = places == PLACES - 1
        truncated = ~terminated & (steps_done == 2 * PLACES)
        step = {k: v for k, v in decision._asdict().items() if k != "memory_state"}
        step |= {"obs": obs, "episode_starts": starts}
        step |= {"terminated": terminated, "truncated": truncated}
        for name, tensor in step.items():
            record.setdefault(name, []).append(tensor)
        starts = terminated | truncated
        places, steps_done = (torch.where(starts, 0, each) for each in (places, steps_done))
    stacked = {name: torch.stack(tensors) for name, tensors in record.items()}
    last_obs = {"obs": F.one_hot(places, PLACES).float()}
    steps, lanes = stacked["truncated"].nonzero().unbind(1)
    rollout = Rollout(
        **{**stacked, "obs": {"obs": stacked["obs"]}},
        rewards=stacked["terminated"].float(),
        final_values=torch.zeros(PLACES, len(places)),
        memory_state=empty,
        last_values=policy.value(last_obs, empty, starts),
        last_obs=last_obs,
        last_starts=starts,
        final_obs={"obs": torch.zeros(len(steps), PLACES)},
        final_steps=steps,
        final_lanes=lanes,
    )
    return rollout, places, steps_done


@pytest.mark.parametrize("explores", [True, False])
def test_a_lock_is_opened_with_intrinsic_rewards_and_not_without(explores):
    """Random actions open it in one of 2^19 attempts, so that there is nothing to learn from."""
    policy = make_small_policy()
    configs = {"rnd": RNDConfig(hidden_size=32, embedding_size=16)} if explores else {}
    config = PPOConfig(
        rollout_length=PLACES,
        learning_rate=1e-2,
        num_epochs=2,
        minibatch_size=640,
        normalize_advantages=False,
    )
    objectives = make_objectives(policy, configs, ())
    agent = PPO(policy, config, num_envs=64, total_updates=25, objectives=objectives)
    places = steps_done = torch.zeros(64, dtype=torch.long)
    for _ in range(25):
        rollout, places, steps_done = collect(policy, places, steps_done)
        agent.update(rollout)
    opened = int(rollout.rewards.sum())  # At most 64 x 20 / 19.
    assert opened > 40 if explores else opened == 0


def test_what_is_reported_and_recorded_stays_native():
    """The reward of a `Counter` is ten times the step's number plus the action."""
    envs = LocalEnvs("tests.agents.toy:Counter-v0", 4)
    policy = make_policy(specs={"obs": VectorSpec(size=2)})
    objectives = make_objectives(policy, {"rnd": RNDConfig(reward_coef=100.0)}, ())
    agent = PPO(policy, PPOConfig(), num_envs=4, total_updates=3, objectives=objectives)
    sampler = Sampler(envs, policy, rollout_length=8, seed=0)
    with contextlib.closing(sampler):
        for _ in range(3):
            collected = sampler.collect()
            native = collected.rollout.rewards.clone()
            metrics = agent.update(collected.rollout)
            assert metrics["objectives/rnd/reward"] > 0
            assert torch.equal(collected.rollout.rewards, native)
            for episode in collected.episodes:
                arrays = episode.arrays()
                expected = 10.0 * np.arange(len(arrays["rewards"])) + arrays["actions"]
                np.testing.assert_allclose(arrays["rewards"], expected)
                assert episode.statistics["r"] == pytest.approx(expected.sum())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("reward_coef", -1.0, "reward_coef must not be negative, got -1.0"),
        ("reward_gamma", 1.0, "reward_gamma must be at least 0 and less than 1, got 1.0"),
        ("hidden_size", 0, "hidden_size must be greater than 0, got 0"),
    ],
)
def test_values_out_of_range_are_errors(field, value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        RNDConfig(**{field: value})
