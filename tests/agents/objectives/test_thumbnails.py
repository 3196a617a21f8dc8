"""Tests of `agents.objectives.thumbnails`."""

from __future__ import annotations

import pytest
import torch

from agents.objectives.thumbnails import Thumbnails
from perception import ImageSpec
from perception.decode import Decoder
from tests.agents.synthetic import IMAGE, VECTOR, make_obs, make_policy

SPECS = {"screen": IMAGE, "variables": VECTOR, "map": ImageSpec(shape=(37, 42, 1))}


@pytest.mark.parametrize("cell", [1, 5, 99])
def test_thumbnails_and_changes_equal_a_loop_over_cells(cell):
    thumbnails = Thumbnails(make_policy(specs=SPECS), cell)
    obs = make_obs(SPECS, 2, 3)
    images, changes = thumbnails(obs), thumbnails.changes(obs)
    assert images.keys() == changes.keys() == {"screen", "map"}
    assert thumbnails.flat(obs).shape == (2, 3, thumbnails.size)
    for name, image in images.items():
        height, width = SPECS[name].shape[:2]
        side = min(cell, height, width)
        assert image.shape == (2, 3, *thumbnails.shapes[name])
        assert thumbnails.shapes[name][1:] == (height // side, width // side)
        decoded = Decoder(SPECS[name])(obs[name].flatten(0, 1)).unflatten(0, (2, 3))
        for y, x in ((0, 0), (height // side - 1, width // side - 1)):
            part = decoded[..., y * side : (y + 1) * side, x * side : (x + 1) * side]
            torch.testing.assert_close(image[..., y, x], part.mean((-2, -1)))
            change = (part[1] - part[0]).abs().mean((-3, -2, -1))
            torch.testing.assert_close(changes[name][0, :, y, x], change)
