"""Tests of `perception.memory.mingru`, beyond those for every memory."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from perception.memory import MinGRU, MinGRUConfig
from perception.memory.mingru import scan


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 33])
def test_a_scan_equals_the_steps_one_by_one(steps):
    torch.manual_seed(steps)
    decay, inputs = torch.rand(steps, 3, 2), torch.randn(steps, 3, 2)
    decay[torch.rand(steps, 3) < 0.2] = 0.0
    state, expected = torch.randn(3, 2), []
    now = state
    for t in range(steps):
        now = decay[t] * now + inputs[t]
        expected.append(now)
    torch.testing.assert_close(scan(decay, inputs, state), torch.stack(expected))


def test_operations_grow_with_the_logarithm_of_the_length():
    class Count(TorchDispatchMode):
        operations = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.operations += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for steps in (8, 64):
        memory = MinGRU(MinGRUConfig(memory_size=4, memory_layers=1), 3)
        starts = torch.zeros(steps, 2, dtype=torch.bool)
        with Count() as count:
            memory(torch.randn(steps, 2, 3), memory.initial_state(2), starts)
        counts.append(count.operations)
    assert counts[1] <= 2.5 * counts[0]  # 6 doublings instead of 3; step by step it would be 8.


def test_units_forget_at_different_speeds_at_first():
    torch.manual_seed(0)
    memory = MinGRU(MinGRUConfig(memory_size=256, memory_layers=1), 3)
    horizons = 1 / memory.gates[0].bias.sigmoid()
    assert horizons.min() < 3
    assert horizons.max() > 40
    assert horizons.max() <= 65
