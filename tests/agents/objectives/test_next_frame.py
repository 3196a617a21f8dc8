"""Tests of `agents.objectives.next_frame`."""

from __future__ import annotations

import pytest
import torch

from agents import AgentError
from agents.objectives import NextFrame, NextFrameConfig
from perception import VectorSpec
from tests.agents.objectives.moving import evaluate, make_dot, make_small_policy, train
from tests.agents.synthetic import IMAGE, VECTOR, make_policy, make_rollout


def test_the_next_image_of_a_dot_is_foreseen():
    policy = make_small_policy()
    objective = NextFrame(policy, NextFrameConfig(cell_size=1, hidden_size=64), ())
    train(policy, objective, make_dot, 60)
    with torch.no_grad():
        right, metrics = evaluate(policy, objective, make_dot(999))
        wrong, _ = evaluate(policy, objective, make_dot(999, shuffled=True))
    assert right < 0.1 * metrics["repeat"]
    assert right < 0.1 * wrong


def test_the_loss_equals_a_loop_over_steps():
    policy = make_policy(specs={"screen": IMAGE, "variables": VECTOR})
    objective = NextFrame(policy, NextFrameConfig(cell_size=7), ())
    rollout = make_rollout(policy, 6, 3)
    rollout.episode_starts[1] = torch.tensor([False, True, False])
    objective.observe(policy, rollout)
    with torch.no_grad():
        output = policy(rollout.obs, rollout.memory_state, rollout.episode_starts)
        loss, metrics = objective.loss(policy, output, rollout)
        images = objective.thumbnails.flat(rollout.obs)
        changes = images.diff(dim=0)
        # Of step 0, in which one of three episodes ends.
        scale = (changes[0, [0, 2]].square().mean() * 2 / 3).sqrt()
        total = repeat = 0.0
        for t in range(5):
            for lane in range(3):
                if not rollout.episode_starts[t + 1, lane]:
                    step = output.features[t, lane], rollout.actions[t, lane]
                    change = changes[t, lane] / scale
                    total += float((objective.predict(policy, *step) - change).square().mean())
                    repeat += float(change.square().mean())
    assert 0 < rollout.episode_starts[1:].sum() < 15
    assert float(loss) == pytest.approx(total / 18, rel=1e-4)
    assert float(metrics["repeat"]) == pytest.approx(repeat / 18, rel=1e-4)


def test_without_images_the_error_is_one_line():
    policy = make_policy(specs={"obs": VectorSpec(size=3)})
    with pytest.raises(AgentError, match=r"^the objective next_frame needs images, but"):
        NextFrame(policy, NextFrameConfig(), ())
