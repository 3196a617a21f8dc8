"""Tests of `agents.objectives.adversarial`."""

from __future__ import annotations

import pytest
import torch

from agents.attacks import pgd, step_size, uniform_noise
from agents.objectives import Adversarial, AdversarialConfig, NoiseConfig, ShiftConfig
from agents.objectives.consistency import Noise, Shift
from tests.agents.synthetic import IMAGE, VECTOR, make_policy, make_rollout

SPECS = {"screen": IMAGE, "variables": VECTOR}


def make_decided_policy(memory="none"):
    """Return a policy whose actions are far from equally likely."""
    policy = make_policy(specs=SPECS, memory=memory)
    with torch.no_grad():
        policy.actor.layer.weight.mul_(200.0)
    return policy


def worst_divergence(policy, batch, epsilon):
    """Return the largest KL divergence that PGD finds, computed without the objective."""
    with torch.no_grad():
        clean = policy(batch.obs, batch.memory_state, batch.episode_starts).distribution
        images = {"screen": policy.perception.pixels(batch.obs)["screen"]}

    def loss(pixels):
        output = policy({**batch.obs, **pixels}, batch.memory_state, batch.episode_starts)
        return clean.kl(output.distribution)

    start = uniform_noise(images, epsilon, torch.Generator().manual_seed(9))
    worst = pgd(loss, images, epsilon, steps=20, size=step_size(epsilon, 20), start=start)
    with torch.no_grad():
        return float(loss(worst).mean()), clean.probabilities()


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_training_lowers_what_an_attack_can_do_and_keeps_the_decisions(memory):
    policy = make_decided_policy(memory)
    batch = make_rollout(policy, 6, 4)
    objective = Adversarial(policy, AdversarialConfig(epsilon=4.0, steps=2), ())
    before, clean = worst_divergence(policy, batch, 4 / 255)
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    for _ in range(25):
        output = policy(batch.obs, batch.memory_state, batch.episode_starts)
        loss, metrics = objective.loss(policy, output, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after, now = worst_divergence(policy, batch, 4 / 255)
    assert after < 0.5 * before
    # It is not lower because all decisions have become the same.
    assert (now - clean).abs().mean() < 0.5 * (clean - clean.mean((0, 1))).abs().mean()
    assert loss.item() == float(metrics["divergence"])


def test_the_loss_is_the_divergence_at_the_attacked_pixels():
    policy = make_decided_policy()
    batch = make_rollout(policy, 3, 4)
    config = AdversarialConfig(epsilon=8.0, steps=3, value_weight=0.5)
    objective = Adversarial(policy, config, ())
    output = policy(batch.obs, batch.memory_state, batch.episode_starts)
    torch.manual_seed(4)
    loss, metrics = objective.loss(policy, output, batch)
    torch.manual_seed(4)
    pixels = objective.changed(policy, output.distribution, batch)
    changed = policy({**batch.obs, **pixels}, batch.memory_state, batch.episode_starts)
    p, q = output.distribution.probabilities(), changed.distribution.probabilities()
    divergence = (p * (p / q).log()).sum(-1).mean()
    error = (output.values - changed.values).square().mean()
    assert float(metrics["divergence"]) == pytest.approx(float(divergence), rel=1e-3)
    assert float(loss) == pytest.approx(float(divergence + 0.5 * error), rel=1e-3)
    assert divergence > 0


def test_noise_is_as_strong_as_stated_and_vectors_are_left_alone():
    policy = make_policy(specs=SPECS)
    batch = make_rollout(policy, 5, 6)
    objective = Noise(policy, NoiseConfig(strength=2.0), ())
    changed = objective.changed(policy, None, batch)
    assert list(changed) == ["screen"]
    clean = policy.perception.pixels(batch.obs)["screen"]
    inside = (clean > 0.1) & (clean < 0.9)
    deviation = float((changed["screen"] - clean)[inside].std()) * 255
    assert deviation == pytest.approx(2.0, rel=0.05)


def test_a_sequence_is_shifted_as_one():
    policy = make_policy(specs=SPECS)
    batch = make_rollout(policy, 5, 6)
    moved = Shift(policy, ShiftConfig(max_shift=3), ()).changed(policy, None, batch)["screen"]
    images = batch.obs["screen"]
    assert moved.shape == images.shape
    offsets = range(-3, 4)
    inside = (slice(None), slice(3, -3), slice(3, -3))
    for lane in range(6):
        found = [
            torch.equal(moved[:, lane][inside], images[:, lane].roll((-dy, -dx), (1, 2))[inside])
            for dy in offsets
            for dx in offsets
        ]
        assert sum(found) == 1


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        (AdversarialConfig, "epsilon", 0.0, "epsilon must be greater than 0, got 0.0"),
        (AdversarialConfig, "steps", 0, "steps must be greater than 0, got 0"),
        (AdversarialConfig, "value_weight", -1.0, "value_weight must not be negative, got -1.0"),
        (NoiseConfig, "strength", 0.0, "strength must be greater than 0, got 0.0"),
        (ShiftConfig, "max_shift", 0, "max_shift must be greater than 0, got 0"),
    ],
)
def test_ranges_are_checked(kind, field, value, message):
    with pytest.raises(ValueError, match=rf"^{message}$"):
        kind(**{field: value})
