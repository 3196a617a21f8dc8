"""Tests of `agents.vtrace`."""

from __future__ import annotations

import pytest
import torch

from agents import AGENTS, VTraceConfig
from agents.agent import following_values
from agents.returns import gae
from agents.vtrace import judge, vtrace_estimate
from tests.agents.synthetic import IMAGE, VECTOR, make_policy, make_rollout
from tests.agents.toy import ACTION_SPACES

STEPS, NUM_ENVS = 16, 4
MEMORIES = ["none", "lstm", "gru"]


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
def test_clips_out_of_range_are_refused(clips):
    with pytest.raises(ValueError, match=r"must be at least c_clip .* greater than 0$"):
        VTraceConfig(**clips)


def test_clips_in_range_are_taken_and_common_ranges_checked_too():
    config = VTraceConfig(rho_clip=2.0, c_clip=0.5)
    assert (config.rho_clip, config.c_clip) == (2.0, 0.5)
    with pytest.raises(ValueError, match=r"^gamma must be between 0 and 1, got 1\.1$"):
        VTraceConfig(gamma=1.1)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_the_present_policy_judges_its_own_rollout_as_it_did(actions, memory):
    agent = make_agent(policy=make_policy(memory=memory, actions=ACTION_SPACES[actions]))
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    logprobs, values = judge(agent, rollout)
    torch.testing.assert_close(logprobs, rollout.logprobs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values, rollout.values, rtol=1e-4, atol=1e-5)
    assert not logprobs.requires_grad
    assert not values.requires_grad


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("minibatch_size", [1, STEPS, 3 * STEPS, 1000])
def test_judging_in_parts_equals_judging_at_once(memory, minibatch_size):
    policy = make_policy(specs={"screen": IMAGE, "variables": VECTOR}, memory=memory)
    rollout = make_rollout(policy, STEPS, NUM_ENVS)
    if policy.is_recurrent:
        rollout.memory_state.normal_(generator=torch.Generator().manual_seed(0))
        rollout.episode_starts[0] = torch.tensor([False, True, False, True])
    whole = judge(make_agent(policy=policy), rollout)
    sizes = []
    agent = make_agent(policy=policy, minibatch_size=minibatch_size)
    policy.register_forward_pre_hook(lambda _, given: sizes.append(given[2].numel()))
    parts = judge(agent, rollout)
    assert sum(sizes) == STEPS * NUM_ENVS
    assert max(sizes) <= max(STEPS, minibatch_size)
    for part, expected in zip(parts, whole, strict=True):
        assert part.shape == (STEPS, NUM_ENVS)
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", ["vtrace", "ppo"])
def test_of_its_own_rollout_a_policy_estimates_as_gae_does(name, memory):
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


def test_an_older_policys_rollout_is_judged_by_the_present_one():
    agent = make_agent(gamma=0.9, rho_clip=2.0, c_clip=1.5)
    # Noise: as if an older policy had acted.
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS, noise=0.5)
    advantages, returns = agent.estimate(rollout, rollout.rewards)
    clips = {"rho_clip": 2.0, "c_clip": 1.5}
    unweighted, targets, weights = vtrace_estimate(agent, rollout, rollout.rewards, **clips)
    assert torch.equal(advantages, weights * unweighted)
    assert torch.equal(returns, targets)
    for other in vtrace_estimate(agent, rollout, rollout.rewards):
        assert not any(torch.allclose(other, part) for part in (unweighted, targets, weights))
    # The last step has no trace yet: its target is a step's error, weighted, above its value.
    logprobs, values = judge(agent, rollout)
    rho = (logprobs - rollout.logprobs)[-1].exp().clamp(max=2.0)
    follows = torch.where(rollout.truncated[-1], rollout.final_values[-1], rollout.last_values)
    follows = follows * ~rollout.terminated[-1]
    error = rho * (rollout.rewards[-1] + 0.9 * follows - values[-1])
    torch.testing.assert_close(advantages[-1], error)
    torch.testing.assert_close(returns[-1], values[-1] + error)


def test_the_loss_weighs_advantages_once():
    agent = make_agent(value_coef=0.0, entropy_coef=0.0)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS, noise=0.5)
    advantages, _ = agent.estimate(rollout, rollout.rewards)
    logprobs, _ = judge(agent, rollout)
    metrics = agent.update(rollout)
    assert metrics["loss"] == pytest.approx(float(-(logprobs * advantages).mean()), abs=1e-5)
