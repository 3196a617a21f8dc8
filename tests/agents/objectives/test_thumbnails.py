"""Tests of `agents.objectives.thumbnails`."""

from __future__ import annotations

import pytest
import torch

from agents.objectives.thumbnails import Thumbnails
from perception import ImageSpec
from perception.decode import Decoder
from tests.agents.synthetic import IMAGE, PALETTE, VECTOR, make_obs, make_policy

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


@pytest.mark.parametrize(
    "channels",
    [("palette",), ("palette", "depth"), ("palette", "automap"), ("red", "green", "blue")],
)
def test_of_stacked_frames_the_newest_is_seen(channels):
    newest = ImageSpec(shape=(36, 40, len(channels)), channels=channels, palette=PALETTE)
    stack = ImageSpec(shape=(36, 40, 3 * len(channels)), channels=3 * channels, palette=PALETTE)
    obs = make_obs({"obs": stack}, 2, 3)
    expected = Thumbnails(make_policy(specs={"obs": newest}), 4)
    found = Thumbnails(make_policy(specs={"obs": stack}), 4)
    last = {"obs": obs["obs"][..., -len(channels) :]}
    assert torch.equal(found.flat(obs), expected.flat(last))
    assert torch.equal(found.changes(obs)["obs"], expected.changes(last)["obs"])
    other = obs["obs"].clone()
    other[..., : -len(channels)] = 0
    assert torch.equal(found.flat({"obs": other}), found.flat(obs))
