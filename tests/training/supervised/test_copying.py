"""Tests of `training.supervised.copying`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.ndimage
import torch

from agents.device import single_thread
from training.supervised.copying import CopyingDecoder, moved

LENGTH, SIZE, SHIFT = 2, (16, 24), 3
MOVES = (-SHIFT, 0, SHIFT)


def shifted(images, columns):
    """Return (B, H, W) images, each moved to the right by a number of columns; what enters is 0."""
    padded = np.pad(images, ((0, 0), (0, 0), (2 * SHIFT, 2 * SHIFT)))
    width = images.shape[2]
    starts = 2 * SHIFT - columns
    return np.stack([p[:, s : s + width] for p, s in zip(padded, starts, strict=True)])


def toy(count, seed):
    """Return pictures, the actions, and the pictures that these move them to."""
    rng = np.random.default_rng(seed)
    noise = scipy.ndimage.gaussian_filter(rng.random((count, 10, 10)), (0, 1, 1))
    blobs = (noise - noise.min()) / (noise.max() - noise.min())
    last = np.pad(blobs, ((0, 0), (3, 3), (7, 7)))
    actions = rng.integers(3, size=(count, LENGTH))
    totals = np.cumsum(np.array(MOVES)[actions], 1)
    future = np.stack([shifted(last, total) for total in totals.T], 1)
    arrays = last, np.eye(3)[actions], future
    return [torch.tensor(array, dtype=torch.float32) for array in arrays]


def squared_error(predicted, future):
    return float((predicted - future).square().sum((-2, -1)).mean())


def least_error_without_actions(last, future):
    """Return the error of the best prediction that does not know the actions: the mean of all."""
    sequences = itertools.product(MOVES, repeat=LENGTH)
    count = len(last)
    all_futures = [
        np.stack([shifted(last.numpy(), np.full(count, n)) for n in np.cumsum(moves)], 1)
        for moves in sequences
    ]
    return squared_error(torch.tensor(np.mean(all_futures, 0)), future)


@pytest.mark.parametrize("known", [True, False])
def test_actions_decide_how_the_picture_moves(known):
    """With the actions, the error goes to 0; without them, it stays above the least possible."""
    torch.manual_seed(0)
    decoder = CopyingDecoder(4, size=SIZE, num_buttons=3, channels=8)
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)

    def predict(last, actions):
        return decoder(
            torch.zeros(len(last), 4),
            torch.stack([last, last], 1),
            actions if known else 0 * actions,
        )

    with single_thread():
        for seed in range(70):
            last, actions, future = toy(16, seed)
            loss = (predict(last, actions) - future).square().sum((-2, -1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        last, actions, future = toy(256, 10_000)
        with torch.no_grad():
            error = squared_error(predict(last, actions), future)
    least = least_error_without_actions(last, future)
    repeated = squared_error(last[:, None], future)
    assert least > 0.2 * repeated
    if known:
        assert error < 0.05 * least
    else:
        assert error > 0.9 * least


def test_moves_add_up_and_borders_are_repeated():
    rng = np.random.default_rng(0)
    image = rng.random((1, 9, 12)).astype(np.float32)
    steps = torch.zeros(3, 1, 9, 12, 2)
    steps[0, ..., 0] = 2  # Each pixel comes from two columns to the right, then from a row below.
    steps[1, ..., 1] = 1
    steps[2, ..., 0] = -0.5
    frames = moved(torch.from_numpy(image), steps)[:, 0].numpy()
    kwargs = {"order": 1, "mode": "nearest"}
    for frame, shift in zip(frames, ((0, -2), (-1, -2), (-1, -1.5)), strict=True):
        expected = scipy.ndimage.shift(image[0], shift, **kwargs)
        np.testing.assert_allclose(frame[:, 1:], expected[:, 1:], atol=1e-5)
