"""Tests of `agents.objectives.depth`."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from agents import A2C, A2CConfig, AgentError
from agents.objectives import Depth, DepthConfig
from agents.objectives.depth import NUM_BANDS
from envs.doom import sight
from perception import VectorSpec
from tests.agents.synthetic import make_policy, make_rollout

SPECS = {"obs": VectorSpec(size=4)}
NAMES = ("DEPTH_0_0", "DEPTH_0_1")


def make(target_names=("HEALTH", *NAMES), **options):
    policy = make_policy(specs=SPECS)
    return policy, Depth(policy, DepthConfig(**options), target_names)


def make_data(policy, steps, num_envs, seed=0, every=4):
    """Return a rollout whose cells are near or far by the observation, in one of `every` envs."""
    rollout = make_rollout(policy, steps, num_envs, seed=seed)
    x = rollout.obs["obs"]
    targets = {
        "DEPTH_0_0": 7 * (x[..., 0] > 0).float(),
        "DEPTH_0_1": 1 + 3 * (x[..., 1] > 0).float(),
    }
    missing = torch.arange(num_envs) % every != 0
    targets = {name: target.masked_fill(missing, -1.0) for name, target in targets.items()}
    return dataclasses.replace(rollout, targets=targets)


def output_of(policy, rollout):
    return policy(rollout.obs, rollout.memory_state, rollout.episode_starts)


def test_depth_is_learned_from_a_quarter_of_the_environments():
    """Then they are predicted in all environments of an unseen rollout."""
    policy, objective = make(coef=1.0, hidden_size=32)
    config = A2CConfig(learning_rate=1e-2, entropy_coef=0.0, max_grad_norm=10.0)
    agent = A2C(policy, config, num_envs=16, total_updates=1, objectives={"depth": objective})
    metrics = [agent.update(make_data(policy, 16, 16, seed=seed)) for seed in range(80)]
    assert metrics[0]["objectives/depth/loss"] == pytest.approx(math.log(8), abs=0.1)
    assert metrics[-1]["objectives/depth/loss"] < 0.4
    unseen = make_data(policy, 16, 16, seed=1_000, every=1)
    objective.observe(policy, unseen)
    with torch.no_grad():
        _, seen = objective.loss(policy, output_of(policy, unseen), unseen)
    assert seen["accuracy"] > 0.9


def test_the_loss_equals_a_hand_written_one():
    policy, objective = make()
    rollout = make_data(policy, 6, 8)
    objective.observe(policy, rollout)
    with torch.no_grad():
        torch.nn.init.normal_(objective.head[2].weight)
        output = output_of(policy, rollout)
        loss, metrics = objective.loss(policy, output, rollout)
        logits = objective.head(output.features)[:, ::4].reshape(-1, 2, NUM_BANDS)
    targets = torch.stack([rollout.targets[name][:, ::4].flatten() for name in NAMES], 1).long()
    each = [F.cross_entropy(logits[:, i], targets[:, i]) for i in range(2)]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    torch.testing.assert_close(metrics["accuracy"], (logits.argmax(2) == targets).float().mean())


def test_there_are_as_many_bands_as_environments_report():
    assert NUM_BANDS == sight.NUM_BANDS
    _, objective = make((*sight.DEPTH_KEYS, *sight.KIND_KEYS))
    assert objective.targets == sight.DEPTH_KEYS


def test_the_errors_are_one_line():
    with pytest.raises(AgentError) as error:
        make(("HEALTH",))
    assert str(error.value) == (
        "the objective depth needs depth, which the environment does not report; add "
        "--depth-targets in Doom, or remove the objective"
    )
    with pytest.raises(ValueError, match=r"^hidden_size must be greater than 0, got 0$"):
        DepthConfig(hidden_size=0)
