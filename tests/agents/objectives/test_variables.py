"""Tests of `agents.objectives.variables`."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from agents import A2C, A2CConfig, AgentError
from agents.objectives import Variables, VariablesConfig
from agents.policy import PolicyOutput
from perception import VectorSpec
from tests.agents.synthetic import make_policy, make_rollout

SPECS = {"obs": VectorSpec(size=4)}
NAMES = ("ENEMY_IN_VIEW", "HEALTH", "AMMO2")


def make(names=(), target_names=NAMES, **options):
    policy = make_policy(specs=SPECS)
    return policy, Variables(policy, VariablesConfig(names=names, **options), target_names)


def make_data(policy, steps, num_envs, seed=0):
    """Return a rollout whose targets are functions of the observations."""
    rollout = make_rollout(policy, steps, num_envs, seed=seed)
    x = rollout.obs["obs"]
    targets = {
        "ENEMY_IN_VIEW": (x[..., 0] > 0).float(),
        "HEALTH": 70 + 20 * x[..., 1] - 10 * x[..., 2],
        "AMMO2": 5 * x[..., 3],
    }
    return dataclasses.replace(rollout, targets=targets)


def output_of(policy, rollout):
    return policy(rollout.obs, rollout.memory_state, rollout.episode_starts)


def test_predictions_are_learned_from_features():
    """They become much better than predicting the mean, also on observations of another rollout."""
    policy, objective = make(coef=1.0)
    config = A2CConfig(learning_rate=1e-2, entropy_coef=0.0, max_grad_norm=10.0)
    objectives = {"variables": objective}
    agent = A2C(policy, config, num_envs=16, total_updates=1, objectives=objectives)
    for seed in range(120):
        agent.update(make_data(policy, 16, 16, seed=seed))
    unseen = make_data(policy, 16, 16, seed=1_000)
    with torch.no_grad():
        output = output_of(policy, unseen)
        _, losses = objective.loss(policy, output, unseen)
        predicted = objective.head(output.features)
    # Of normalised numbers, the variance is 1; that of a fair coin has a cross-entropy of log 2.
    assert losses["HEALTH"] < 0.15
    assert losses["AMMO2"] < 0.15
    assert losses["ENEMY_IN_VIEW"] < 0.3
    enemy = predicted[..., objective.targets.index("ENEMY_IN_VIEW")] > 0
    is_right = enemy == (unseen.targets["ENEMY_IN_VIEW"] == 1)
    assert is_right.float().mean() > 0.9


def test_features_alone_decide_what_can_be_predicted():
    """A positive control: from constant features, only the mean can be learned."""
    policy, objective = make()
    rollout = make_data(policy, 16, 16)
    objective.observe(policy, rollout)
    with torch.no_grad():
        output = output_of(policy, rollout)
        objective.head.weight.zero_()
        objective.head.bias.zero_()
        _, losses = objective.loss(policy, output, rollout)
    assert float(losses["HEALTH"]) == pytest.approx(1.0, abs=0.01)
    assert float(losses["AMMO2"]) == pytest.approx(1.0, abs=0.01)
    assert float(losses["ENEMY_IN_VIEW"]) == pytest.approx(0.693, abs=0.001)


def test_losses_equal_hand_written_ones():
    policy, objective = make()
    rollout = make_data(policy, 6, 4)
    other = make_data(policy, 6, 4, seed=1)
    for each in (rollout, other):
        objective.observe(policy, each)
    with torch.no_grad():
        output = output_of(policy, rollout)
        loss, losses = objective.loss(policy, output, rollout)
        predicted = objective.head(output.features)
    for i, name in enumerate(objective.targets):
        both = torch.cat((rollout.targets[name], other.targets[name])).double()
        target = rollout.targets[name]
        if name == "ENEMY_IN_VIEW":
            probability = predicted[..., i].sigmoid()
            expected = F.binary_cross_entropy(probability, target)
        else:
            normal = (target - both.mean()) / both.std(correction=0)
            expected = (predicted[..., i] - normal).square().mean()
        torch.testing.assert_close(losses[name], expected.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, torch.stack(list(losses.values())).mean())


def test_the_loss_depends_on_features_only():
    policy, objective = make()
    rollout = make_data(policy, 3, 2)
    objective.observe(policy, rollout)
    features = torch.randn(3, 2, policy.perception.num_features)
    output = PolicyOutput(None, None, features, None)
    loss, _ = objective.loss(None, output, rollout)
    assert loss.shape == ()
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("names", "reported", "expected"),
    [
        ((), NAMES, ("HEALTH", "AMMO2", "ENEMY_IN_VIEW")),
        ((), ("HEALTH", "KILLCOUNT"), ("HEALTH",)),
        ((), ("SELECTED_WEAPON_AMMO",), ("SELECTED_WEAPON_AMMO",)),
        (("KILLCOUNT", "HEALTH"), ("HEALTH", "KILLCOUNT"), ("KILLCOUNT", "HEALTH")),
    ],
)
def test_variables_are_those_configured_or_the_usual_ones(names, reported, expected):
    _, objective = make(names, reported)
    assert objective.targets == expected
    assert objective.head.out_features == len(expected)


@pytest.mark.parametrize(
    ("names", "reported", "message"),
    [
        (
            ("ARMOR", "HEALTH"),
            ("HEALTH", "AMMO2"),
            "the objective variables needs ARMOR, which the environment does not report; it "
            "reports: HEALTH, AMMO2",
        ),
        (
            ("HEALTH",),
            (),
            "the objective variables needs HEALTH, which the environment does not report; it "
            "reports: none",
        ),
        (
            (),
            ("KILLCOUNT",),
            "the objective variables has nothing to predict: the environment reports none of "
            "HEALTH, SELECTED_WEAPON_AMMO, AMMO2, ENEMY_IN_VIEW; choose names of: KILLCOUNT",
        ),
    ],
    ids=["unknown", "nothing reported", "nothing usual"],
)
def test_the_error_for_missing_variables_is_one_line(names, reported, message):
    with pytest.raises(AgentError) as error:
        make(names, reported)
    assert str(error.value) == message
