"""Tests of `training.supervised.classification`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from training.supervised.classification import confusion, stratified
from training.supervised.digits import Digits, DigitsConfig


def test_measures_are_those_of_scikit_learn():
    torch.manual_seed(0)
    task = Digits(DigitsConfig())
    batch = {"label": torch.randint(0, 10, (200,))}
    logits = torch.randn(200, 10) + 2 * torch.nn.functional.one_hot(batch["label"], 10)
    statistics = task.statistics(logits, batch)
    labels, predicted = batch["label"], logits.argmax(1)
    measures = task.measure(statistics)
    assert measures["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert measures["log_likelihood"] == pytest.approx(
        -log_loss(labels, logits.double().softmax(1))
    )
    np.testing.assert_array_equal(confusion(statistics, 10), confusion_matrix(labels, predicted))
    expected = logits.softmax(1)[torch.arange(200), labels]
    np.testing.assert_allclose(statistics["probability"], expected)


def test_the_baseline_names_the_most_frequent_class_of_training():
    task = Digits(DigitsConfig())
    train = {"label": torch.tensor([3, 3, 3, 5, 5, 1])}
    statistics = task.baseline(train, {"label": torch.tensor([3, 5, 3, 9])})
    assert statistics["predicted"].tolist() == [3, 3, 3, 3]
    assert task.measure(statistics)["accuracy"] == 0.5
    np.testing.assert_allclose(statistics["probability"], [1 / 2, 1 / 3, 1 / 2, 0], rtol=1e-6)


def test_parts_are_disjoint_and_each_class_has_the_same_share():
    labels = np.repeat(np.arange(5), 40)[np.random.default_rng(1).permutation(200)]
    parts = stratified(labels, (0.2, 0.1), seed=0)
    assert [len(part) for part in parts] == [40, 20, 140]
    assert sorted(np.concatenate(parts)) == list(range(200))
    for part in parts:
        assert len(set(np.bincount(labels[part]))) == 1
    again = stratified(labels, (0.2, 0.1), seed=0)
    assert all(np.array_equal(*pair) for pair in zip(parts, again, strict=True))
