"""Tests of `training.supervised.segments`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score

from perception import PerceptionConfig
from perception.encoders import NatureConfig
from storage.perception_file import load_perception
from storage.run_folder import RunFolder
from tests.training.supervised.data import made_scenes
from training.supervised.config import default_see_config
from training.supervised.learning import see
from training.supervised.scenes import write_scenes
from training.supervised.scoring import rebuild, score
from training.supervised.segments import Map, Segments, SegmentsConfig, iou

CONFIG = SegmentsConfig(scenes=500, scenarios=("basic",), height=40, width=48, decoder_channels=8)


@pytest.fixture
def task(tmp_path):
    config = replace(CONFIG, data=tmp_path / "scenes.npz")
    write_scenes(config.path, made_scenes(500, config), config)
    return Segments(config)


def test_measures_are_those_of_scikit_learn(task):
    torch.manual_seed(0)
    batch = {name: part[:20] for name, part in task.load("train").items()}
    right = torch.nn.functional.one_hot(batch["classes"].long(), 4).movedim(-1, 1)
    logits = torch.randn(20, 4, 40, 48) + 2 * right
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
    assert measures["iou_background"] > 0.8
    assert measures["iou_monster"] == 0


@pytest.mark.parametrize("size", [(60, 80), (30, 41), (5, 7)])
def test_a_map_has_the_size_of_the_screen(size):
    assert Map(16, 4, size)(torch.zeros(3, 16)).shape == (3, 4, *size)


def test_squares_are_segmented(task, tmp_path):
    """A problem with a known answer: where the squares are."""
    config = replace(
        default_see_config("segments"),
        task=task.config,
        epochs=15,
        batch_size=32,
        learning_rate=3e-3,
        num_threads=1,
        perception=PerceptionConfig(encoder=NatureConfig(conv_channels=(8, 16, 16), features=64)),
    )
    folder = RunFolder(tmp_path / "run")
    see(config, folder, [])
    file = load_perception(folder.perception_file)
    rebuilt, network = rebuild(file, torch.device("cpu"))
    measures, test, statistics = score(rebuilt, network, file.trained.source)
    assert measures["mean_iou"].low > measures["mean_iou"].baseline + 0.1
    (picture,) = rebuilt.pictures(network, test, statistics).values()
    assert picture.ndim == 3


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="decoder_channels must be between 1 and 1,024, got 0"):
        SegmentsConfig(decoder_channels=0)
