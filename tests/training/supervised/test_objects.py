"""Tests of `training.supervised.objects`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from tests.training.supervised.data import made_scenes
from tests.training.supervised.trained import learned
from training.supervised.objects import Objects, ObjectsConfig, average_precision
from training.supervised.scenes import write_scenes

CONFIG = ObjectsConfig(scenes=500, scenarios=("basic",), height=12, width=16)


@pytest.fixture
def task(tmp_path):
    config = replace(CONFIG, data=tmp_path / "scenes.npz")
    write_scenes(config.path, made_scenes(500, config), config)
    return Objects(config)


@pytest.mark.parametrize("ties", [False, True])
def test_the_average_precision_is_that_of_scikit_learn(ties):
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.9):
        truths = rng.random(200) < share
        truths[0] = True
        scores = rng.random(200) + 0.3 * truths
        if ties:
            scores = scores.round(1)
        expected = average_precision_score(truths, scores)
        assert average_precision(truths, scores) == pytest.approx(expected)
    assert math.isnan(average_precision(np.zeros(3, bool), np.arange(3.0)))
    # By hand: right at ranks 1 and 3 of 4.
    by_hand = average_precision(np.array([True, False, True, False]), np.array([4.0, 3, 2, 1]))
    assert by_hand == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_errors_are_of_scenes_with_monsters_only(task):
    statistics = {
        "presence": np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1.0]]),
        "probability": np.array([[0.9, 0.1, 0.2], [0.2, 0.8, 0.1], [0.6, 0.1, 0.9]]),
        "counts": np.array([[2, 0, 0], [0, 1, 0], [1, 0, 1.0]]),
        "predicted_counts": np.array([[1, 0, 0], [0, 1, 0.5], [1, 0, 1.0]]),
        "bearing": np.array([10, np.nan, -20.0]),
        "predicted_bearing": np.array([5, 70, -10.0]),
        "distance": np.array([100, np.nan, 300.0]),
        "predicted_distance": np.array([130, 0, 310.0]),
    }
    measures = task.measure(statistics)
    assert measures["bearing_error"] == pytest.approx(7.5)
    assert measures["distance_error"] == pytest.approx(20)
    assert measures["count_error"] == pytest.approx(1.5 / 9)
    assert measures["mean_average_precision"] == 1
    nothing = {name: array[1:2] for name, array in statistics.items()}
    assert math.isnan(task.measure(nothing)["bearing_error"])


def test_the_baseline_knows_the_medians_and_shares_of_training(task):
    train, test = task.load("train"), task.load("test")
    statistics = task.baseline(train, test)
    measures = task.measure(statistics)
    for k, kind in enumerate(("monster", "item", "projectile")):
        # A constant score has the precision of chance.
        share = float(test["presence"][:, k].mean())
        assert measures[f"average_precision_{kind}"] == pytest.approx(share)
    median = np.nanmedian(train["bearing"].numpy())
    assert statistics["predicted_bearing"][0] == pytest.approx(median, abs=1)


def test_scenes_without_monsters_teach_no_places(task):
    batch = {name: part[:40] for name, part in task.load("train").items()}
    unseen = batch["bearing"].isnan()
    assert 0 < unseen.sum() < 40
    outputs = torch.randn(40, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(task.loss(outputs, batch), outputs)
    assert torch.isfinite(gradient).all()
    assert not gradient[unseen, 6:].any()
    assert gradient[~unseen, 6:].all()


def test_a_mirrored_scene_has_the_opposite_bearing(task):
    batch = {name: part[:64] for name, part in task.load("train").items()}
    torch.manual_seed(0)
    changed = task.augment(batch)
    mirrored = (changed["image"] != batch["image"]).flatten(1).any(1)
    assert 15 < mirrored.sum() < 50
    for name in ("image", "classes"):
        expected = batch[name].numpy().copy()
        expected[mirrored] = expected[mirrored][:, :, ::-1]
        np.testing.assert_array_equal(changed[name].numpy(), expected)
    signs = torch.where(mirrored, -1.0, 1.0)
    torch.testing.assert_close(changed["bearing"], batch["bearing"] * signs, equal_nan=True)


def test_squares_are_found(task):
    """A problem with a known answer: which brightnesses there are, and on which side."""
    network, test, statistics = learned(task, 150)
    measures = task.measure(statistics)
    baseline = task.measure(task.baseline(task.load("train"), test))
    assert measures["mean_average_precision"] > baseline["mean_average_precision"] + 0.3
    assert measures["bearing_error"] < 0.5 * baseline["bearing_error"]
    assert measures["count_error"] < 0.8 * baseline["count_error"]
    (picture,) = task.pictures(network, test, statistics).values()
    assert picture.ndim == 3
