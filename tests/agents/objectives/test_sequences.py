"""Tests of `agents.objectives.sequences`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.objectives.sequences import (
    encoded_actions,
    mean_where,
    num_action_inputs,
    same_episode,
)
from tests.agents.toy import ACTION_SPACES


@pytest.mark.parametrize("delay", [0, 1, 3, 9])
def test_steps_of_an_episode_equal_a_loop(delay):
    starts = torch.rand(9, 5, generator=torch.Generator().manual_seed(0)) < 0.2
    together = same_episode(starts, delay)
    assert together.shape == (9 - delay, 5)
    for t in range(9 - delay):
        for lane in range(5):
            crossed = any(starts[i, lane] for i in range(t + 1, t + delay + 1))
            assert bool(together[t, lane]) == (not crossed)


def test_the_mean_is_that_of_the_means_of_parts_and_counts_steps_without_target_as_0():
    losses = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    mask = torch.tensor([[True, False, True], [True, True, False]])
    assert float(mean_where(losses, mask, 4)) == pytest.approx((1 + 3 + 4 + 5) / 12)
    parts = [mean_where(losses[:, part], mask[:, part], 4) for part in ([0, 1], [2])]
    assert float((2 * parts[0] + parts[1]) / 3) == pytest.approx(13 / 12)


@pytest.mark.parametrize("kind", ACTION_SPACES)
def test_actions_are_encoded_as_gymnasium_flattens_them(kind):
    space = ACTION_SPACES[kind]
    space.seed(0)
    actions = np.stack([space.sample() for _ in range(6)])
    encoded = encoded_actions(space, torch.as_tensor(actions).view(2, 3, *space.shape))
    assert encoded.shape == (2, 3, num_action_inputs(space))
    assert encoded.dtype == torch.float32
    if kind == "MultiBinary":  # Each switch is a choice of two, which Gymnasium does not see so.
        space, actions = spaces.MultiDiscrete([2] * len(actions[0])), actions.astype(np.int64)
    flat = np.stack([spaces.flatten(space, action) for action in actions])
    np.testing.assert_allclose(encoded.flatten(0, 1), flat.astype(np.float32))
