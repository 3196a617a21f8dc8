"""Tests of `perception.normalization`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.normalization import ObservationNormalizer, RunningMeanStd


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_statistics_of_batches_equal_those_of_all_vectors_at_once(sizes, seed):
    rng = np.random.default_rng(seed)
    batches = [rng.normal(1000.0, 3.0, (size, 2)).astype(np.float32) for size in sizes]
    statistics = RunningMeanStd(2)
    for batch in batches:
        statistics.update(torch.from_numpy(batch))
    everything = np.concatenate(batches).astype(np.float64)
    np.testing.assert_allclose(statistics.mean, everything.mean(0), rtol=1e-9)
    np.testing.assert_allclose(statistics.variance, everything.var(0), rtol=1e-6, atol=1e-8)
    assert statistics.count == len(everything)


def test_statistics_of_large_numbers_are_exact():
    statistics = RunningMeanStd(1)
    rng = np.random.default_rng(0)
    for _ in range(300):
        statistics.update(torch.from_numpy(rng.normal(1e6, 1.0, (100, 1))))
    assert float(statistics.variance) == pytest.approx(1.0, rel=0.05)


def test_vectors_are_normalised_and_clipped():
    normalizer = ObservationNormalizer(2)
    vectors = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * 5 + 3
    normalizer.update(vectors)
    normal = normalizer(vectors)
    assert normal.dtype == torch.float32
    torch.testing.assert_close(normal.mean(0), torch.zeros(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(normal.std(0), torch.ones(2), rtol=0, atol=1e-2)
    assert normalizer(torch.tensor([[1e9, -1e9]])).tolist() == [[10.0, -10.0]]


def test_a_new_normaliser_changes_nothing():
    vectors = torch.tensor([[0.5, -2.0]])
    torch.testing.assert_close(ObservationNormalizer(2)(vectors), vectors)


def test_numbers_that_never_vary_become_zero():
    normalizer = ObservationNormalizer(1)
    normalizer.update(torch.full((50, 1), 7.0))
    assert normalizer(torch.full((3, 1), 7.0)).tolist() == [[0.0]] * 3


def test_statistics_are_saved_and_are_no_parameters():
    normalizer = ObservationNormalizer(2)
    assert set(normalizer.state_dict()) == {"mean", "variance", "count"}
    assert not list(normalizer.parameters())
