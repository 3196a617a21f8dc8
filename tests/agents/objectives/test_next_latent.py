"""Tests of `agents.objectives.next_latent`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from agents.objectives import NextLatent, NextLatentConfig
from tests.agents.objectives.moving import evaluate, make_dot, make_small_policy, train
from tests.agents.synthetic import IMAGE, VECTOR, make_policy, make_rollout

SPECS = {"screen": IMAGE, "variables": VECTOR}


def test_a_dot_that_actions_move_is_foreseen():
    policy = make_small_policy()
    config = NextLatentConfig(horizon=2, state_size=64, projection_size=32)
    objective = NextLatent(policy, config, ())
    train(policy, objective, make_dot, 120, 6e-3)
    with torch.no_grad():
        right, metrics = evaluate(policy, objective, make_dot(999))
        wrong, _ = evaluate(policy, objective, make_dot(999, shuffled=True))
    assert right < 0.35 * wrong
    assert right < 0.35 * metrics["constant"]


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_the_loss_equals_a_loop_over_steps(memory):
    policy = make_policy(specs=SPECS, memory=memory)
    config = NextLatentConfig(horizon=3, state_size=9, projection_size=5)
    objective = NextLatent(policy, config, ())
    rollout = make_rollout(policy, 7, 3)
    rollout.targets.update(objective.targets_of(policy, rollout))
    objective.observe(policy, rollout)
    with torch.no_grad():
        output = policy(rollout.obs, rollout.memory_state, rollout.episode_starts)
        loss, metrics = objective.loss(policy, output, rollout)
        obs = {name: part.flatten(0, 1) for name, part in rollout.obs.items()}
        latents = policy.perception.encode(obs).view(7, 3, -1)
        deviation = latents.flatten(0, 1).std(0, correction=0)
        standard = (latents - latents.mean((0, 1))) / (deviation + 0.1 * deviation.mean())
        targets = objective.projection(standard)
        mean = F.normalize(targets, dim=-1).mean((0, 1))
        total = constant = 0.0
        for t in range(7):
            for lane in range(3):
                features = standard if memory == "none" else output.features
                state = objective.start(features[t, lane])
                for k in range(1, 4):
                    if t + k >= 7 or rollout.episode_starts[t + k, lane]:
                        break
                    action = F.one_hot(rollout.actions[t + k - 1, lane], 3).float()
                    state = objective.advance(state, action)
                    predicted = objective.predictor(
                        objective.projection(objective.to_latent(state))
                    )
                    cosine = F.cosine_similarity(predicted, targets[t + k, lane], dim=0)
                    total += float(1 - cosine) / 3
                    always = F.cosine_similarity(mean, targets[t + k, lane], dim=0)
                    constant += float(1 - always) / 3
    assert 0 < rollout.episode_starts[1:].sum() < 18
    assert float(loss) == pytest.approx(total / 21, rel=1e-4)
    assert float(metrics["constant"]) == pytest.approx(constant / 21, rel=1e-4)


def test_no_gradient_flows_through_the_targets():
    """The last step is nothing but a target, so that its image gets no gradient."""
    policy = make_policy(specs={"obs": VECTOR})
    objective = NextLatent(policy, NextLatentConfig(horizon=1), ())
    rollout = make_rollout(policy, 2, 4)
    rollout.episode_starts[1] = False
    rollout.obs["obs"].requires_grad_()
    evaluate(policy, objective, rollout)[0].backward()
    assert rollout.obs["obs"].grad[0].any()
    assert not rollout.obs["obs"].grad[1].any()


def test_rollouts_must_be_longer_than_the_horizon():
    policy = make_policy(specs=SPECS)
    assert NextLatent(policy, NextLatentConfig(horizon=4), ()).sequence_length == 5


@pytest.mark.parametrize("field", ["horizon", "state_size", "projection_size"])
def test_values_out_of_range_are_errors(field):
    with pytest.raises(ValueError, match=f"^{field} must be greater than 0, got 0$"):
        NextLatentConfig(**{field: 0})
