"""Tests of `training.supervised.augment`."""

from __future__ import annotations

import torch

from training.supervised.augment import randomly_warped


def test_images_are_changed_a_little_and_each_in_its_own_way():
    image = torch.zeros(28, 28, 1, dtype=torch.uint8)
    image[10:18, 10:18] = 255
    warped = randomly_warped(image.expand(200, -1, -1, -1))
    assert warped.shape == (200, 28, 28, 1)
    assert warped.dtype == torch.uint8
    assert len({bytes(each.flatten().tolist()) for each in warped}) == 200
    weights = warped.float()
    total = weights.sum((1, 2, 3))
    # The square grows and shrinks with the scale of both sides, and stays inside the image.
    assert (total / (64 * 255)).min() > 0.7
    assert (total / (64 * 255)).max() < 1.5
    at = torch.arange(28.0)
    rows = (weights[..., 0].sum(2) * at).sum(1) / total
    columns = (weights[..., 0].sum(1) * at).sum(1) / total
    for centres in (rows, columns):
        assert abs(float(centres.mean()) - 13.5) < 0.3
        assert 1.0 < float((centres - 13.5).abs().max()) < 4.0


def test_the_same_seed_warps_in_the_same_way():
    images = torch.randint(0, 256, (4, 28, 28, 1), dtype=torch.uint8)
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(randomly_warped(images))
    assert torch.equal(*results)
