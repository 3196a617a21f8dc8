"""Tests of `benchmarks.operations`."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmarks.operations import operations, table


def test_products_are_counted_for_an_env_step():
    left, right = torch.rand(64, 32), torch.rand(32, 16)
    images, weight = torch.rand(2, 3, 9, 9), torch.rand(5, 3, 4, 4, requires_grad=True)

    def compute():
        F.relu(left @ right)
        torch.autograd.grad(F.conv2d(images, weight).sum(), weight)

    rows = {row.name: row for row in operations(compute, env_steps=8)}
    outputs = 2 * 5 * 6 * 6
    expected = {
        "aten.mm": 64 * 32 * 16,
        "aten.convolution": outputs * 3 * 4 * 4,
        "aten.convolution_backward": outputs * 3 * 4 * 4,  # Images need no gradient.
        "aten.relu": 0,
    }
    for name, products in expected.items():
        assert rows[name].multiply_adds * 8 == products
        assert rows[name].seconds > 0
    assert rows["aten.mm"].shapes == "64x32, 32x16"
    times = [row.seconds for row in rows.values()]
    assert times == sorted(times, reverse=True)


def test_the_table_adds_up():
    rows = operations(lambda: torch.rand(8, 8) @ torch.rand(8, 8), env_steps=1)
    (_, _, first, others, everything) = table(rows, 1, rate=1e9)
    shares = [float(line.split("|")[4]) for line in (first, others, everything)]
    assert shares[2] == 1
    assert abs(shares[0] + shares[1] - 1) <= 0.01
