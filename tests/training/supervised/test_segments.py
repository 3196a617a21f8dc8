"""Tests of `training.supervised.segments`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score

from tests.training.supervised.data import made_scenes
from tests.training.supervised.trained import learned
from training.supervised.scenes import write_scenes
from training.supervised.segments import Map, Segments, SegmentsConfig, iou

CONFIG = SegmentsConfig(scenes=500, scenarios=("basic",), height=12, width=16, decoder_channels=8)


@pytest.fixture
def task(tmp_path):
    config = replace(CONFIG, data=tmp_path / "scenes.npz")
    write_scenes(config.path, made_scenes(500, config), config)
    return Segments(config)


def test_measures_are_those_of_scikit_learn(task):
    torch.manual_seed(0)
    batch = {name: part[:20] for name, part in task.load("train").items()}
    right = torch.nn.functional.one_hot(batch["classes"].long(), 4).movedim(-1, 1)
    logits = torch.randn(20, 4, 12, 16) + 2 * right
    statistics = task.statistics(logits, batch)
    truths = batch["classes"].flatten().numpy()
    predicted = logits.argmax(1).flatten().numpy()
    np.testing.assert_array_equal(
        statistics["confusion"].sum(0), confusion_matrix(truths, predicted)
    )
    measures = task.measure(statistics)
    expected = jaccard_score(truths, predicted, average=None)
    np.testing.assert_allclose(list(measures.values())[1:], expected)
    assert measures["mean_iou"] == pytest.approx(jaccard_score(truths, predicted, average="macro"))
    # Scene by scene, so that scenes can be resampled.
    one = {name: part[3:4] for name, part in batch.items()}
    only = task.statistics(logits[3:4], one)["confusion"]
    np.testing.assert_array_equal(only[0], statistics["confusion"][3])


def test_a_class_that_is_nowhere_has_no_iou():
    ious = iou(np.array([[5, 0, 0], [0, 0, 0], [2, 0, 1]]))
    np.testing.assert_allclose(ious, [5 / 7, np.nan, 1 / 3])


def test_the_baseline_predicts_the_most_frequent_class_of_each_pixel(task):
    train, test = task.load("train"), task.load("test")
    train["classes"][:, 5, 7] = 2
    measures = task.measure(task.baseline(train, test))
    right = int((test["classes"][:, 5, 7] == 2).sum())
    items = int((test["classes"] == 2).sum()) + len(test["classes"]) - right
    assert measures["iou_item"] == pytest.approx(right / items)
    assert measures["iou_background"] > 0.6
    assert measures["iou_monster"] == 0


@pytest.mark.parametrize("size", [(60, 80), (30, 41), (5, 7)])
def test_a_map_has_the_size_of_the_screen(size):
    assert Map(16, 4, size)(torch.zeros(3, 16)).shape == (3, 4, *size)


def test_squares_are_segmented(task):
    """A problem with a known answer: the quadrants that have the brightness of a kind."""
    network, test, statistics = learned(task, 80)
    baseline = task.measure(task.baseline(task.load("train"), test))
    assert task.measure(statistics)["mean_iou"] > baseline["mean_iou"] + 0.4
    (picture,) = task.pictures(network, test, statistics).values()
    assert picture.ndim == 3


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="decoder_channels must be between 1 and 1,024, got 0"):
        SegmentsConfig(decoder_channels=0)
