"""Tests of `agents.objectives.pixel_control`."""

from __future__ import annotations

import pytest
import torch

from agents import AgentError
from agents.objectives import PixelControl, PixelControlConfig
from agents.objectives.pixel_control import DuelingHead, n_step_targets
from perception import ImageSpec, VectorSpec
from tests.agents.objectives.moving import SPECS, make_minibatch, make_small_policy, train
from tests.agents.synthetic import IMAGE, VECTOR, make_policy, make_rollout
from tests.agents.toy import ACTION_SPACES


@pytest.mark.parametrize("num_steps", [1, 3, 20])
def test_targets_equal_a_loop_over_rewards(num_steps):
    generator = torch.Generator().manual_seed(0)
    rewards, best = torch.rand(9, 4, 2, 3, generator=generator), torch.rand(10, 4, 2, 3)
    mask = torch.rand(9, 4, generator=generator) < 0.8
    targets = n_step_targets(rewards, best, mask, gamma=0.7, num_steps=num_steps)
    assert targets.shape == rewards.shape
    for t in range(9):
        for lane in range(4):
            total, discount, step = torch.zeros(2, 3), 1.0, t
            while step < 9 and step - t < num_steps and mask[step, lane]:
                total, discount, step = (
                    total + discount * rewards[step, lane],
                    discount * 0.7,
                    step + 1,
                )
            torch.testing.assert_close(targets[t, lane], total + discount * best[step, lane])


@pytest.mark.parametrize("kind", ["Discrete", "MultiDiscrete", "MultiBinary"])
def test_the_loss_equals_a_loop_over_steps(kind):
    policy = make_policy(specs={"screen": IMAGE, "variables": VECTOR}, actions=ACTION_SPACES[kind])
    config = PixelControlConfig(cell_size=9, num_steps=2)
    objective = PixelControl(policy, config, ())
    rollout = make_rollout(policy, 6, 3)
    objective.observe(policy, rollout)
    sizes = {"Discrete": [3], "MultiDiscrete": [2, 3], "MultiBinary": [2, 2]}[kind]
    with torch.no_grad():
        output = policy(rollout.obs, rollout.memory_state, rollout.episode_starts)
        loss, metrics = objective.loss(policy, output, rollout)
        rewards = objective.thumbnails.changes(rollout.obs)["screen"]
        value, advantages = objective.heads["screen"](output.features)
        each = advantages.split(sizes, 2)
        best = value + sum(part.max(2).values for part in each)
        mask = ~rollout.episode_starts[1:]
        scale = (1 - 0.9) / (rewards[0].mean((1, 2)) * ~rollout.episode_starts[1]).mean()
        targets = n_step_targets(scale * rewards, best, mask, gamma=0.9, num_steps=2)
        total = change = 0.0
        for t in range(5):
            for lane in range(3):
                if mask[t, lane]:
                    choices = rollout.actions[t, lane].reshape(-1).tolist()
                    chosen = value[t, lane] + sum(
                        part[t, lane, choice] for part, choice in zip(each, choices, strict=True)
                    )
                    total += float((chosen - targets[t, lane]).square().mean())
                    change += float(rewards[t, lane].mean())
    assert 0 < mask.sum() < 15
    assert float(loss) == pytest.approx(total / 18, rel=1e-4)
    assert float(metrics["change"]) == pytest.approx(change / 18, rel=1e-4)


def make_lamp(seed):
    """Return a minibatch in which action 1 switches the left half, and others change nothing."""
    actions = torch.randint(3, (12, 8), generator=torch.Generator().manual_seed(seed))
    before = torch.cat((torch.zeros_like(actions[:1]), actions[:-1]))
    is_bright = (before == 1).long().cumsum(0) % 2
    images = torch.zeros(12, 8, *SPECS["obs"].shape, dtype=torch.uint8)
    images[:, :, :, :4] = (255 * is_bright[..., None, None, None]).byte()
    return make_minibatch(images, actions, torch.zeros_like(actions).bool())


@pytest.mark.parametrize(("num_steps", "rest"), [(1, 1.0), (12, 1 / 3)])
def test_values_are_those_of_switching_a_lamp(num_steps, rest):
    """Action 1 changes the left cells fully: its reward there is 1, and all others are 0.

    With returns of one step, the value of what follows is that of always switching, gamma / (1 -
    gamma) = 1. Long returns contain the rewards of the actions that were taken, one third of it.
    """
    policy = make_small_policy()
    config = PixelControlConfig(cell_size=2, gamma=0.5, num_steps=num_steps)
    objective = PixelControl(policy, config, ())
    train(policy, objective, make_lamp, 160, 1e-2)
    batch = make_lamp(999)
    with torch.no_grad():
        output = policy(batch.obs, batch.memory_state, batch.episode_starts)
        value, advantages = objective.heads["obs"](output.features)
    values = (value[:, :, None] + advantages).mean((0, 1))  # (A, h, w)
    left, right = values[:, :, :2].mean((1, 2)), values[:, :, 2:].abs().mean((1, 2))
    scale = 0.5 / objective.changes.mean.float()
    expected = scale * torch.tensor([rest, 1 + rest, rest])
    torch.testing.assert_close(left, expected, rtol=0, atol=float(0.2 * scale))
    assert right.max() < 0.2 * scale


@pytest.mark.parametrize("cells", [(1, 1), (4, 9), (15, 20)])
def test_a_head_has_a_value_for_each_cell(cells):
    head = DuelingHead(6, [2, 3], cells)
    value, advantages = head(torch.randn(4, 2, 6))
    assert value.shape == (4, 2, *cells)
    assert advantages.shape == (4, 2, 5, *cells)
    for each in advantages.split([2, 3], 2):
        torch.testing.assert_close(each.mean(2), torch.zeros(4, 2, *cells), rtol=0, atol=1e-6)


def test_errors_are_one_line():
    specs = {"obs": ImageSpec(shape=(36, 40, 1))}
    with pytest.raises(AgentError, match=r"^the objective pixel_control needs actions that are ch"):
        PixelControl(
            make_policy(specs=specs, actions=ACTION_SPACES["Box"]), PixelControlConfig(), ()
        )
    policy = make_policy(specs={"obs": VectorSpec(size=3)})
    with pytest.raises(AgentError, match=r"^the objective pixel_control needs images, but"):
        PixelControl(policy, PixelControlConfig(), ())
    with pytest.raises(ValueError, match=r"^gamma must be at least 0 and less than 1, got 1$"):
        PixelControlConfig(gamma=1)
