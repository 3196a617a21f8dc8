"""Tests of `training.supervised.schedule`."""

from __future__ import annotations

import pytest
import torch

from training.supervised.schedule import decay


@pytest.mark.parametrize("schedule", ["constant", "step", "linear", "cosine"])
def test_the_decay_is_that_of_pytorch(schedule):
    length = 12
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    kinds = torch.optim.lr_scheduler
    theirs = {
        "constant": lambda: kinds.ConstantLR(optimizer, 1.0),
        "step": lambda: kinds.StepLR(optimizer, length // 3, 0.1),
        "linear": lambda: kinds.LinearLR(optimizer, 1.0, 0.0, length),
        "cosine": lambda: kinds.CosineAnnealingLR(optimizer, length),
    }[schedule]()
    for step in range(length):
        ours = decay(schedule, step / length, factor=0.1, steps=2)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
