"""Tests of `deploy.measure`."""

from __future__ import annotations

import pytest

from deploy.measure import multiply_adds, torch_latency
from tests.agents.synthetic import IMAGE, make_policy


@pytest.mark.parametrize(("memory", "of_memory"), [("none", 0), ("lstm", 4 * 6 * (16 + 6))])
def test_multiply_adds_are_those_of_a_hand_count(memory, of_memory):
    """Maps of 36x40 pixels become 8x9, 3x3 and 1x1 numbers; a palette and depth are 4 planes."""
    policy = make_policy(specs={"obs": IMAGE}, memory=memory)
    convolutions = 8 * 9 * 4 * (4 * 8 * 8) + 3 * 3 * 4 * (4 * 4 * 4) + 1 * 1 * 4 * (4 * 3 * 3)
    features = 16 if memory == "none" else 6
    expected = convolutions + 4 * 16 + of_memory + features * (3 + 1)
    assert multiply_adds(policy) == expected


def test_the_median_of_latencies_is_at_most_their_99th_percentile():
    latency = torch_latency(make_policy(memory="gru"), 1)
    assert 0 < latency.median_us <= latency.p99_us


def test_measuring_leaves_the_policy_as_it_was():
    """Weights that a measurement kept would be those of the policy before it learned more."""
    policy = make_policy(specs={"obs": IMAGE})
    expected = multiply_adds(policy)
    torch_latency(policy, 1)
    assert multiply_adds(policy) == expected
    assert all(getattr(module, "_kept", None) is None for module in policy.modules())
