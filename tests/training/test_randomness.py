"""Tests of `training.randomness`."""

from __future__ import annotations

import torch

from training.randomness import generator_of


def test_every_place_and_seed_has_other_random_numbers():
    places = [(seed, place) for seed in (0, 1, 2, 2**31 - 1) for place in (0, 1, 2, 3, 4)]
    drawn = {tuple(torch.randperm(9, generator=generator_of(*p)).tolist()) for p in places}
    assert len(drawn) == len(places)


def test_the_same_place_has_the_same_random_numbers():
    first, second = (torch.rand(4, generator=generator_of(3, 5)) for _ in range(2))
    assert torch.equal(first, second)
