"""Tests of `evaluation.robustness.player`."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces

from evaluation.robustness.player import ChangedPlayer, total_variation
from tests.agents.synthetic import IMAGE, VECTOR, make_draws, make_obs, make_policy

SPECS = {"screen": IMAGE, "variables": VECTOR}


def inputs(policy, num_envs=5):
    obs = make_obs(SPECS, num_envs)
    starts = torch.ones(num_envs, dtype=torch.bool)
    return obs, policy.initial_state(num_envs), starts, make_draws(policy.action_space, num_envs)


@pytest.mark.parametrize("normalize_obs", [False, True])
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_without_a_change_decisions_are_the_same_bit_for_bit(memory, normalize_obs):
    policy = make_policy(specs=SPECS, memory=memory, normalize_obs=normalize_obs)
    policy.observe(make_obs(SPECS, 2, 3))
    given = inputs(policy)
    for change in (None, lambda obs, moment: moment.obs):
        player = ChangedPlayer(policy, change)
        for ours, theirs in zip(player.act(*given), policy.act(*given), strict=True):
            assert torch.equal(ours, theirs)
    effect = player.effect(1.0)
    assert (effect.distance, effect.changed, effect.value) == (0, 0, 0)


def test_the_effect_is_that_of_the_change_alone():
    policy = make_policy(specs=SPECS)
    with torch.no_grad():
        policy.actor.layer.weight.mul_(20.0)
    given, watched = inputs(policy), []

    def change(obs, moment):
        return {**moment.obs, "screen": 1 - moment.obs["screen"]}

    player = ChangedPlayer(policy, change, lambda clean, seen: watched.append((clean, seen)))
    decision = player.act(*given)
    clean = policy.act(*given)
    inverted = policy.perception.pixels(given[0])
    inverted["screen"] = 1 - inverted["screen"]
    expected = policy.act(inverted, *given[1:])
    assert torch.equal(decision.actions, expected.actions)
    effect = player.effect(10.0)
    assert effect.value == pytest.approx(10 * float((expected.values - clean.values).mean()), 1e-4)
    most_likely = [d.probabilities.argmax(1) for d in (clean, expected)]
    changed = (most_likely[0] != most_likely[1]).float().mean()
    assert effect.changed == pytest.approx(float(changed))
    assert 0 < effect.distance <= 1
    ((before, after),) = watched
    assert torch.equal(1 - before["screen"], after["screen"])


def test_total_variation_is_half_of_what_probabilities_differ_by():
    left, right = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.3, 0.5]])
    one = make_policy(actions=spaces.Discrete(3))
    assert float(total_variation(one, left, right)) == pytest.approx(0.3)
    two = make_policy(actions=spaces.MultiDiscrete([3, 2]))
    left = torch.cat([left, torch.tensor([[1.0, 0.0]])], 1)
    right = torch.cat([right, torch.tensor([[0.0, 1.0]])], 1)
    assert float(total_variation(two, left, right)) == pytest.approx((0.3 + 1.0) / 2)
    switches = make_policy(actions=spaces.MultiBinary(2))
    left, right = torch.tensor([[0.9, 0.5]]), torch.tensor([[0.5, 0.5]])
    assert float(total_variation(switches, left, right)) == pytest.approx(0.2)
    numbers = make_policy(actions=spaces.Box(-1, 1, (2,)))
    assert float(total_variation(numbers, left[:, :0], right[:, :0])) == 0
