"""Tests of `agents.vtrace`."""

from __future__ import annotations

import contextlib

import pytest
import torch

from agents import AGENTS, Sampler, VTraceConfig
from agents.agent import following_values
from agents.returns import gae
from agents.rollout import Rollout
from agents.vtrace import reevaluate, vtrace_estimate
from perception import MEMORIES, VectorSpec
from tests.agents.synthetic import IMAGE, VECTOR, make_policy, make_rollout
from tests.agents.toy import ACTION_SPACES, LocalEnvs

STEPS, NUM_ENVS = 16, 4
EVALUATED = ("logprobs", "values", "last_values", "final_values")


def make_agent(name="vtrace", *, policy=None, memory="none", **options):
    kind, learner = AGENTS[name]
    policy = policy or make_policy(memory=memory)
    return learner(policy, kind(**options), num_envs=NUM_ENVS, total_updates=1)


@pytest.mark.parametrize(
    "clips",
    [
        {"rho_clip": 0.5},
        {"c_clip": 1.5},
        {"c_clip": 0.0},
        {"rho_clip": -1.0, "c_clip": -1.0},
        {"rho_clip": float("nan")},
        {"c_clip": float("nan")},
    ],
    ids=str,
)
def test_clips_out_of_range_are_errors(clips):
    with pytest.raises(ValueError, match=r"must be at least c_clip .* greater than 0$"):
        VTraceConfig(**clips)


def test_clips_in_range_are_accepted_and_common_ranges_are_checked_too():
    config = VTraceConfig(rho_clip=2.0, c_clip=0.5)
    assert (config.rho_clip, config.c_clip) == (2.0, 0.5)
    with pytest.raises(ValueError, match=r"^gamma must be between 0 and 1, got 1\.1$"):
        VTraceConfig(gamma=1.1)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_a_policy_evaluates_its_own_rollout_in_the_same_way_again(actions, memory):
    agent = make_agent(policy=make_policy(memory=memory, actions=ACTION_SPACES[actions]))
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    evaluated = reevaluate(agent, rollout)
    for name in EVALUATED:
        got, expected = getattr(evaluated, name), getattr(rollout, name)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        assert not got.requires_grad


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_rollout_of_a_sampler_is_evaluated_in_the_same_way_again(memory):
    policy = make_policy(specs={"obs": VectorSpec(size=2)}, memory=memory)
    envs = LocalEnvs("tests.agents.toy:Counter-v0", NUM_ENVS, 2)
    agent = make_agent(policy=policy, minibatch_size=2 * STEPS)
    with contextlib.closing(Sampler(envs, policy, rollout_length=STEPS, seed=1)) as sampler:
        for _ in range(3):
            rollout = sampler.collect().rollout
            assert rollout.truncated[:-1].any()
            evaluated = reevaluate(agent, rollout)
            for name in EVALUATED:
                got, expected = getattr(evaluated, name), getattr(rollout, name)
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("minibatch_size", [1, STEPS, 3 * STEPS, 1000])
def test_evaluating_in_parts_equals_evaluating_at_once(memory, minibatch_size):
    policy = make_policy(specs={"screen": IMAGE, "variables": VECTOR}, memory=memory)
    rollout = make_rollout(policy, STEPS, NUM_ENVS)
    if policy.is_recurrent:
        rollout.memory_state.normal_(generator=torch.Generator().manual_seed(0))
        rollout.episode_starts[0] = torch.tensor([False, True, False, True])
    whole = reevaluate(make_agent(policy=policy), rollout)
    sizes = []
    agent = make_agent(policy=policy, minibatch_size=minibatch_size)
    policy.critic.register_forward_pre_hook(
        lambda _, given: sizes.append(given[0].shape[:-1].numel())
    )
    parts = reevaluate(agent, rollout)
    assert sum(sizes) == STEPS * NUM_ENVS + len(rollout.final_steps) + NUM_ENVS
    assert max(sizes) <= max(STEPS, minibatch_size)
    for name in EVALUATED:
        part, expected = getattr(parts, name), getattr(whole, name)
        assert part.shape == getattr(rollout, name).shape
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", ["vtrace", "ppo"])
def test_estimates_for_the_policys_own_rollout_equal_gae(name, memory):
    options = {"gamma": 0.9, "gae_lambda": 1.0, "reward_scale": 0.5}
    options |= {"vtrace": True} if name == "ppo" else {}
    agent = make_agent(name, memory=memory, **options)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    rewards = agent.scale(rollout.rewards, rollout.dones)
    advantages, returns = agent.estimate(rollout, rewards)
    following = following_values(rollout)
    expected = gae(rewards, rollout.values, following, rollout.dones, gamma=0.9, gae_lambda=1.0)
    torch.testing.assert_close(advantages, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(returns, expected + rollout.values, rtol=1e-4, atol=1e-4)


def test_the_rollout_of_an_older_policy_is_evaluated_by_the_current_policy():
    agent = make_agent(gamma=0.9, rho_clip=2.0, c_clip=1.5)
    # With noise, as if an older policy had acted.
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS, noise=0.5)
    advantages, returns = agent.estimate(rollout, rollout.rewards)
    clips = {"rho_clip": 2.0, "c_clip": 1.5}
    unweighted, targets, weights = vtrace_estimate(agent, rollout, rollout.rewards, **clips)
    assert torch.equal(advantages, weights * unweighted)
    assert torch.equal(returns, targets)
    for other in vtrace_estimate(agent, rollout, rollout.rewards):
        assert not any(torch.allclose(other, part) for part in (unweighted, targets, weights))
    # The last step has no trace, so that its target is its value plus its weighted TD error.
    evaluated = reevaluate(agent, rollout)
    rho = (evaluated.logprobs - rollout.logprobs)[-1].exp().clamp(max=2.0)
    follows = torch.where(rollout.truncated[-1], evaluated.final_values[-1], evaluated.last_values)
    follows = follows * ~rollout.terminated[-1]
    error = rho * (rollout.rewards[-1] + 0.9 * follows - evaluated.values[-1])
    torch.testing.assert_close(advantages[-1], error)
    torch.testing.assert_close(returns[-1], evaluated.values[-1] + error)


def test_the_loss_weights_advantages_once():
    agent = make_agent(value_coef=0.0, entropy_coef=0.0)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS, noise=0.5)
    advantages, _ = agent.estimate(rollout, rollout.rewards)
    logprobs = reevaluate(agent, rollout).logprobs
    metrics = agent.update(rollout)
    assert metrics["loss"] == pytest.approx(float(-(logprobs * advantages).mean()), abs=1e-5)


def step_by_step(policy, rollout, lane, options):
    """Return V-trace's targets, advantages and weights of one environment, T numbers each.

    They are computed in plain Python, observation by observation, by equation 1 of the paper in its
    original form: a sum over the following steps.
    """
    gamma, lam = options["gamma"], options["gae_lambda"]
    one = slice(lane, lane + 1)
    state = rollout.memory_state[:, one]
    values, ratios, following, ends = [], [], [], []
    for t in range(len(rollout.rewards)):
        obs = {name: part[t : t + 1, one] for name, part in rollout.obs.items()}
        output = policy(obs, state, rollout.episode_starts[t : t + 1, one])
        state = output.memory_state
        logprob = output.distribution.log_prob(rollout.actions[t : t + 1, one])
        ratios.append(float((logprob - rollout.logprobs[t, lane]).exp()))
        values.append(float(output.values))
        ends.append(bool(rollout.terminated[t, lane] or rollout.truncated[t, lane]))
        following.append(0.0 if rollout.terminated[t, lane] else None)
        if rollout.truncated[t, lane]:
            (k,) = (rollout.final_steps == t).logical_and(rollout.final_lanes == lane).nonzero()
            final = {name: part[k] for name, part in rollout.final_obs.items()}
            following[t] = float(policy.value(final, state, torch.tensor([False])))
    last = {name: part[one] for name, part in rollout.last_obs.items()}
    values.append(float(policy.value(last, state, rollout.last_starts[one])))
    following = [values[t + 1] if v is None else v for t, v in enumerate(following)]

    rewards = rollout.rewards[:, lane].tolist()
    rho = [min(ratio, options["rho_clip"]) for ratio in ratios]
    c = [lam * min(ratio, options["c_clip"]) for ratio in ratios]
    targets = []
    for s in range(len(rewards)):
        target, weight = values[s], 1.0
        for t in range(s, len(rewards)):
            target += weight * rho[t] * (rewards[t] + gamma * following[t] - values[t])
            weight *= gamma * c[t]
            if ends[t]:
                break
        targets.append(target)
    advantages = []
    for t, end in enumerate(ends):
        continues = not end and t + 1 < len(targets)
        following_target = targets[t + 1] if continues else following[t]
        advantages.append(rewards[t] + gamma * following_target - values[t])
    return targets, advantages, rho


@pytest.mark.parametrize("truncations", [True, False])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("minibatch_size", [None, STEPS])
def test_all_values_are_those_of_the_current_critic(memory, truncations, minibatch_size):
    """Values of the older critic are never used, not even after the last step and truncations."""
    specs = {"screen": IMAGE, "variables": VECTOR}
    older, current = (make_policy(specs=specs, memory=memory, seed=seed) for seed in (0, 1))
    rollout = make_rollout(older, STEPS, NUM_ENVS, truncations=truncations)
    assert bool(rollout.truncated[1:-1].any()) == truncations
    rollout.memory_state.normal_(generator=torch.Generator().manual_seed(0))
    rollout.episode_starts[0] = torch.tensor([False, True, False, True])
    agent = make_agent(
        policy=current,
        minibatch_size=minibatch_size,
        gamma=0.9,
        gae_lambda=0.95,
        rho_clip=1.2,
        c_clip=1.1,
    )
    options = {name: getattr(agent.config, name) for name in ("gamma", "gae_lambda")}
    options |= {"rho_clip": 1.2, "c_clip": 1.1}
    advantages, targets, rho = vtrace_estimate(
        agent, rollout, rollout.rewards, rho_clip=1.2, c_clip=1.1
    )
    with torch.no_grad():
        expected = [step_by_step(current, rollout, lane, options) for lane in range(NUM_ENVS)]
    for got, lanes in zip((targets, advantages, rho), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(got, torch.tensor(lanes).T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vtrace", "ppo"])
def test_a_rollout_without_last_observations_is_an_error(name):
    agent = make_agent(name, **({"vtrace": True} if name == "ppo" else {}))
    fields = vars(make_rollout(agent.policy, STEPS, NUM_ENVS))
    kept = {n: v for n, v in fields.items() if not n.startswith(("last_", "final_"))}
    kept |= {n: fields[n] for n in ("last_values", "final_values")}
    with pytest.raises(
        ValueError, match=r"^V-trace re-evaluates last observations, but this rollout has none"
    ):
        agent.update(Rollout(**kept))
