"""Tests of `agents.objectives.labels`."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from agents import A2C, A2CConfig, AgentError
from agents.objectives import Labels, LabelsConfig
from envs.doom import sight
from perception import VectorSpec
from tests.agents.synthetic import make_policy, make_rollout

SPECS = {"obs": VectorSpec(size=4)}
NAMES = ("MONSTER_IN_VIEW_0", "MONSTER_IN_VIEW_1", "ITEM_IN_VIEW_0")


def make(target_names=("ENEMY_IN_VIEW", *NAMES), **options):
    policy = make_policy(specs=SPECS)
    return policy, Labels(policy, LabelsConfig(**options), target_names)


def make_data(policy, steps, num_envs, seed=0, every=4):
    """Return a rollout whose kinds depend on the observations, in one of `every` environments."""
    rollout = make_rollout(policy, steps, num_envs, seed=seed)
    x = rollout.obs["obs"]
    missing = torch.arange(num_envs) % every != 0
    targets = {
        name: (x[..., i] > i / 2).float().masked_fill(missing, -1.0) for i, name in enumerate(NAMES)
    }
    return dataclasses.replace(rollout, targets=targets)


def output_of(policy, rollout):
    return policy(rollout.obs, rollout.memory_state, rollout.episode_starts)


def test_kinds_are_learned_from_a_quarter_of_the_environments():
    """Then they are predicted in all environments of an unseen rollout."""
    policy, objective = make(coef=1.0)
    config = A2CConfig(learning_rate=1e-2, entropy_coef=0.0, max_grad_norm=10.0)
    agent = A2C(policy, config, num_envs=16, total_updates=1, objectives={"labels": objective})
    metrics = [agent.update(make_data(policy, 16, 16, seed=seed)) for seed in range(80)]
    # Some targets are more often there than not, or less often: a blind guess costs more than 1.
    assert metrics[0]["objectives/labels/loss"] == pytest.approx(1.15, abs=0.1)
    unseen = make_data(policy, 16, 16, seed=1_000, every=1)
    objective.observe(policy, unseen)
    with torch.no_grad():
        _, seen = objective.loss(policy, output_of(policy, unseen), unseen)
    assert seen.keys() == {"monster", "item"}
    assert min(seen["monster"], seen["item"]) > 0.9


def test_the_loss_equals_a_hand_written_one():
    policy, objective = make()
    rollout = make_data(policy, 6, 8)
    objective.observe(policy, rollout)
    with torch.no_grad():
        torch.nn.init.normal_(objective.head.weight)
        output = output_of(policy, rollout)
        loss, metrics = objective.loss(policy, output, rollout)
        probabilities = objective.head(output.features)[:, ::4].sigmoid()
    targets = torch.stack([rollout.targets[name][:, ::4] for name in NAMES], -1)
    shares = targets.mean((0, 1))
    unit = -(shares * shares.log() + (1 - shares) * (1 - shares).log()).mean()
    torch.testing.assert_close(loss, F.binary_cross_entropy(probabilities, targets) / unit)
    right = ((probabilities > 0.5) == (targets == 1)).float().mean((0, 1))
    torch.testing.assert_close(metrics["monster"], right[:2].mean())
    torch.testing.assert_close(metrics["item"], right[2])


def test_a_prediction_that_knows_only_how_often_kinds_are_there_costs_one():
    policy, objective = make()
    rollout = make_data(policy, 64, 8)
    objective.observe(policy, rollout)
    with torch.no_grad():
        objective.head.weight.zero_()
        objective.head.bias.copy_(objective.frequencies.logit())
        loss, _ = objective.loss(policy, output_of(policy, rollout), rollout)
    torch.testing.assert_close(loss, torch.ones(()))


def test_where_nothing_is_ever_seen_the_loss_is_finite():
    policy, objective = make()
    rollout = make_data(policy, 6, 8)
    targets = {name: target.clamp(max=0.0) for name, target in rollout.targets.items()}
    rollout = dataclasses.replace(rollout, targets=targets)
    objective.observe(policy, rollout)
    loss, _ = objective.loss(policy, output_of(policy, rollout), rollout)
    assert objective.frequencies.sum() == 0
    assert loss.isfinite()


def test_the_kinds_are_those_that_environments_report():
    _, objective = make(("ENEMY_IN_VIEW", *sight.DEPTH_KEYS, *sight.KIND_KEYS))
    assert objective.targets == sight.KIND_KEYS


def test_the_error_is_one_line():
    with pytest.raises(AgentError) as error:
        make(("ENEMY_IN_VIEW",))
    assert str(error.value) == (
        "the objective labels needs the kinds of visible objects, which the environment does not "
        "report; add --kind-targets in Doom, or remove the objective"
    )
