"""Tests of `benchmarks.limits`: its counts against counts by hand."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces
from torch import nn

from agents import build_policy
from benchmarks.limits import (
    Rates,
    Work,
    best_speed,
    core_seconds,
    least_seconds,
    whole_images,
    work_of,
)
from perception import ImageSpec, PerceptionConfig
from perception.encoders import NatureConfig
from tests.agents.synthetic import PALETTE


def test_multiply_adds_of_the_nature_cnn_are_those_by_hand():
    # Mnih et al. 2015 on 84x84 pixels: 20x20, 9x9 and 7x7 positions.
    spec = ImageSpec(shape=(84, 84, 1), channels=("palette",), palette=PALETTE)
    config = PerceptionConfig(encoder=NatureConfig(features=16))
    policy = build_policy({"obs": spec}, spaces.Discrete(3), config)
    convolutions = (
        32 * 20 * 20 * (3 * 8 * 8) + 64 * 9 * 9 * (32 * 4 * 4) + 64 * 7 * 7 * (64 * 3 * 3)
    )
    layers = 16 * (64 * 7 * 7) + 16 * 3 + 16 * 1
    obs = {"obs": torch.zeros(2, 84, 84, 1, dtype=torch.uint8)}
    state, starts = policy.initial_state(2), torch.zeros(2, dtype=torch.bool)
    block = policy.perception.encoders["obs"].decoder.block
    with whole_images(policy):
        work = work_of(lambda: policy.act(obs, state, starts, None))
    assert work.multiply_adds == 2 * (convolutions + layers)
    assert policy.perception.encoders["obs"].decoder.block == block > 1


def test_a_backward_pass_multiplies_twice_as_much():
    layer, inputs = nn.Linear(5, 7), torch.zeros(3, 5, requires_grad=True)
    assert work_of(lambda: layer(inputs)).multiply_adds == 3 * 5 * 7
    assert work_of(lambda: layer(inputs).sum().backward()).multiply_adds == 3 * (3 * 5 * 7)


def test_bytes_are_those_of_arguments_and_results_and_views_move_none():
    one, other = torch.zeros(10, 4), torch.zeros(10, 4)
    assert work_of(lambda: one + other).bytes == 3 * 160
    assert work_of(lambda: one.view(4, 10).t()[1:]).bytes == 0


def test_the_best_speed_is_that_of_engines_and_products_in_turn():
    rates = Rates(multiply_adds=1e9, bytes=1e9)
    acting, learning = Work(multiply_adds=1e5, bytes=5e4), Work(multiply_adds=3e5, bytes=2e5)
    assert least_seconds(learning, rates) == pytest.approx((3e-4, 2e-4))
    # 1,000 env steps: 0.1 s of both cores in engines, and 0.4 s of one core in products.
    speed = best_speed(10_000, 2, (acting, learning), rates)
    assert speed == pytest.approx(1_000 / (0.1 + 0.4 / 2))
    assert best_speed(10_000, 2, (), rates) == pytest.approx(10_000)


def test_core_seconds_are_an_average():
    runs = []
    seconds = core_seconds(lambda: runs.append(sum(range(20_000))), 0.01)
    assert 0 < seconds < 0.1
    assert len(runs) > 1
