"""Tests of `training.supervised.next_frame`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from perception import PerceptionConfig
from perception.encoders import NatureConfig
from perception.memory import LSTMConfig
from training.supervised.network import build_network
from training.supervised.next_frame import (
    FUTURE,
    PAST,
    NextFrame,
    NextFrameConfig,
    cross_entropy,
    ssim,
)


def slow_ssim(first, second):
    """Compute the similarity pixel by pixel, from the definition."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for row in range(first.shape[0] - 10):
        for column in range(first.shape[1] - 10):
            a, b = (image[row : row + 11, column : column + 11] for image in (first, second))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a = (weights * (a - mean_a) ** 2).sum()
            var_b = (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + 1e-4)
                * (2 * covariance + 9e-4)
                / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
            )
    return np.mean(values)


def test_the_similarity_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    first = rng.random((2, 3, 16, 18))
    second = np.clip(first + rng.normal(0, 0.2, first.shape), 0, 1)
    found = ssim(*(torch.tensor(each, dtype=torch.float32) for each in (first, second)))
    assert found.shape == (2, 3)
    for index in np.ndindex(2, 3):
        expected = slow_ssim(first[index], second[index])
        assert float(found[index]) == pytest.approx(expected, abs=1e-4)
    same = torch.rand(1, 12, 12)
    assert float(ssim(same, same)) == pytest.approx(1.0)


def test_measures_are_sums_over_pixels_and_means_over_frames():
    task = NextFrame(NextFrameConfig())
    future = torch.zeros(2, FUTURE, 64, 64, dtype=torch.uint8)
    future[1, :, :2] = 255  # 128 pixels.
    half = torch.full((2, FUTURE, 64, 64), 0.5)
    statistics = task.statistics(half, {"future": future})
    np.testing.assert_allclose(statistics["squared_error"], 4096 / 4)
    np.testing.assert_allclose(statistics["cross_entropy"], 4096 * math.log(2), rtol=1e-5)
    assert float(cross_entropy(future / 255, future / 255).sum()) < 0.1


def test_the_baseline_repeats_the_last_frame():
    task = NextFrame(NextFrameConfig(clips=4, moving_digits=True))
    test = task.load("train")
    still = {**test, "future": test["recent"][:, 1:].expand(-1, FUTURE, -1, -1)}
    assert task.measure(task.baseline({}, still))["squared_error"] == 0
    assert task.measure(task.baseline({}, still))["ssim"] == pytest.approx(1)
    moving = task.measure(task.baseline({}, test))
    assert moving["squared_error"] > 50
    assert moving["ssim"] < 0.9


def test_the_past_is_followed_by_the_future():
    task = NextFrame(NextFrameConfig(clips=6, moving_digits=True))
    parts = {part: task.load(part) for part in ("train", "validation", "test")}
    assert parts["train"]["image"].shape == (4, PAST, 64, 64, 1)
    assert parts["train"]["future"].shape == (4, FUTURE, 64, 64)
    whole = torch.cat([parts["train"]["image"][..., 0], parts["train"]["future"]], 1).int()
    steps = (whole[:, 1:] - whole[:, :-1]).abs().sum((2, 3))
    # The step from past to future is like the others.
    assert (steps[:, PAST - 1] < 2 * steps.float().mean(1)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": 5}, "clips must be between 6 and"),
        ({"height": 10}, "height and width must be at least 11, got 10 and 64"),
        ({"decoder_channels": 3}, "decoder_channels must be even and between 2 and 1,024, got 3"),
    ],
)
def test_sizes_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NextFrameConfig(**options)


@pytest.mark.slow
def test_two_clips_are_told_apart():
    """The memory does not saturate: what is predicted depends on what was seen."""
    torch.manual_seed(0)
    task = NextFrame(NextFrameConfig(clips=3, moving_digits=True, decoder_channels=8))
    train = task.load("train")
    config = PerceptionConfig(
        encoder=NatureConfig(conv_channels=(8, 8, 8), features=64),
        memory=LSTMConfig(memory_size=64),
    )
    network = build_network(task.specs(train), config, task.head, normalize_obs=True)
    network.perception.observe({"image": train["image"].flatten(0, 1)})
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        loss = task.loss(task.predict(network, train), train)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    predicted = task.predict(network, train).detach()
    truths = train["future"] / 255
    errors = (predicted - truths).square().sum()
    of_the_other = (predicted - truths.flip(0)).square().sum()
    assert errors < 0.7 * of_the_other
