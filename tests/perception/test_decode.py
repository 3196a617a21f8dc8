"""Tests of `perception.decode`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perception.decode import Decoder, ImageSpec

RNG = np.random.default_rng(0)
PALETTE = RNG.integers(256, size=(256, 3))


def spec(*channels, size=(6, 7)):
    palette = tuple(map(tuple, PALETTE.tolist())) if "palette" in channels else ()
    return ImageSpec(shape=(*size, len(channels)), channels=channels, palette=palette)


def frames(channels, size=(6, 7), batch=5):
    return RNG.integers(256, size=(batch, *size, channels), dtype=np.uint8)


def planes_first(images):
    return torch.from_numpy(images.astype(np.float32) / np.float32(255)).permute(0, 3, 1, 2)


def test_palette_indices_become_their_colours():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    decoder = Decoder(spec("palette", size=(16, 16)))
    decoded = decoder(torch.from_numpy(pixels))
    assert spec("palette", size=(16, 16)).num_planes == 3
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, planes_first(PALETTE[pixels[..., 0]]), rtol=0, atol=1e-7)


def test_stacked_palette_frames_keep_their_order():
    pixels = frames(3)
    decoded = Decoder(spec("palette", "palette", "palette"))(torch.from_numpy(pixels))
    colours = np.concatenate([PALETTE[pixels[..., c]] for c in range(3)], axis=-1)
    torch.testing.assert_close(decoded, planes_first(colours), rtol=0, atol=1e-7)


def test_of_mixed_channels_the_colours_come_first():
    pixels = frames(4)
    decoder = Decoder(spec("depth", "palette", "labels", "palette"))
    decoded = decoder(torch.from_numpy(pixels))
    parts = [PALETTE[pixels[..., 1]], PALETTE[pixels[..., 3]], pixels[..., [0]], pixels[..., [2]]]
    assert spec("depth", "palette", "labels", "palette").num_planes == 8
    expected = planes_first(np.concatenate(parts, axis=-1))
    torch.testing.assert_close(decoded, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("channels", [("gray",), ("red", "green", "blue")])
def test_brightness_is_scaled_to_0_to_1(channels):
    pixels = frames(len(channels))
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    decoded = Decoder(spec(*channels))(torch.from_numpy(pixels))
    torch.testing.assert_close(decoded, planes_first(pixels), rtol=0, atol=1e-7)
    assert decoded.min() == 0
    assert decoded.max() == 1


def test_unnamed_channels_are_brightnesses():
    pixels = frames(2)
    decoded = Decoder(ImageSpec(shape=(6, 7, 2)))(torch.from_numpy(pixels))
    torch.testing.assert_close(decoded, planes_first(pixels), rtol=0, atol=1e-7)


def test_decoding_leaves_the_frames_unchanged_and_lies_channels_last():
    pixels = torch.from_numpy(frames(2))
    before = pixels.clone()
    decoded = Decoder(spec("palette", "depth"))(pixels)
    assert torch.equal(pixels, before)
    assert decoded.is_contiguous(memory_format=torch.channels_last)


CHANNELS = {
    "colours": ("palette", "palette"),
    "brightnesses": ("red", "green"),
    "both": ("palette", "depth"),
}


@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS.keys())
def test_the_layers_after_it_decide_the_precision(channels):
    pixels = torch.from_numpy(frames(2))
    decoder = Decoder(spec(*channels))
    exact = decoder(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = decoder(pixels)
    assert decoder(pixels).dtype == torch.float32
    as_weights = decoder.to(torch.bfloat16)(pixels)
    for decoded in (under_autocast, as_weights):
        assert decoded.dtype == torch.bfloat16
        assert torch.equal(decoded, exact.bfloat16())
        assert decoded.is_contiguous(memory_format=torch.channels_last)


def test_the_palette_is_saved_and_does_not_learn():
    decoder = Decoder(spec("palette"))
    assert list(decoder.state_dict()) == ["palette"]
    assert not list(decoder.parameters())


def test_channels_that_do_not_fit_the_shape_are_refused():
    with pytest.raises(ValueError, match="2 channels are named for shape"):
        ImageSpec(shape=(6, 7, 3), channels=("red", "green"))


@pytest.mark.parametrize("colours", [0, 255])
def test_a_palette_that_is_not_256_colours_is_refused(colours):
    with pytest.raises(ValueError, match=f"256 colours, not {colours}"):
        ImageSpec(shape=(6, 7, 1), channels=("palette",), palette=((0, 0, 0),) * colours)
