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


def test_an_automap_is_decoded_like_the_screen_and_is_no_older_frame():
    pixels = torch.from_numpy(frames(2))
    once, stacked = spec("palette", "automap"), spec(*("palette", "automap") * 2)
    screens = Decoder(spec("palette", "palette"))(pixels)
    assert torch.equal(Decoder(once)(pixels), screens)
    assert once.newest_frame == stacked.newest_frame == once


def test_colours_come_before_other_channels():
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


def test_channels_without_names_are_brightnesses():
    pixels = frames(2)
    decoded = Decoder(ImageSpec(shape=(6, 7, 2)))(torch.from_numpy(pixels))
    torch.testing.assert_close(decoded, planes_first(pixels), rtol=0, atol=1e-7)


def test_frames_are_not_changed_and_the_result_is_channels_last():
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
def test_the_dtype_is_that_of_autocast_or_of_the_palette(channels):
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


def test_the_palette_is_saved_and_is_no_parameter():
    decoder = Decoder(spec("palette"))
    assert list(decoder.state_dict()) == ["palette"]
    assert not list(decoder.parameters())


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS.keys())
def test_normalised_planes_have_mean_0_and_deviation_1(channels, block):
    # Dark frames; the second channel has half the brightness of the first.
    pixels = torch.from_numpy(frames(len(channels), size=(32, 40), batch=20) // np.uint8(2))
    pixels[..., 1] //= 2
    plain = Decoder(spec(*channels, size=(32, 40)))
    decoder = Decoder(spec(*channels, size=(32, 40)), block, normalize=True)
    decoder.observe(pixels[:7])
    decoder.observe(pixels[7:])
    planes = plain(pixels).transpose(0, 1).flatten(1)
    # The same colour of all stacked frames is normalised together.
    num_colours = 3 * channels.count("palette")
    together = planes[:num_colours].unflatten(0, (-1, 3)).transpose(0, 1).flatten(1)
    parts = [*together.unsqueeze(0).expand(num_colours // 3, -1, -1).flatten(0, 1)]
    parts += [*planes[num_colours:]]
    means, deviations = torch.tensor([(part.mean(), part.std()) for part in parts]).unbind(1)
    expected = (planes - means[:, None]) / deviations[:, None]
    whole = expected.unflatten(1, (20, 32, 40)).transpose(0, 1)
    if block > 1:
        whole = in_blocks(whole, num_colours, block)
    torch.testing.assert_close(decoder(pixels), whole, rtol=0, atol=1e-3)


def in_blocks(planes, num_colours, size):
    """Return (B, P, H, W) images as blocks, like a decoder, with zeros after each three colours."""
    colours, others = planes[:, :num_colours], planes[:, num_colours:]
    padded = torch.nn.functional.pad(colours.unflatten(1, (-1, 3)), (0, 0, 0, 0, 0, 1))
    parts = []
    for part in (padded.flatten(1, 2), others):
        cut = part.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # B, P, H, s, W, s
        parts.append(cut.permute(0, 3, 5, 1, 2, 4).flatten(1, 3).unflatten(1, (size**2, -1)))
    return torch.cat(parts, 2).flatten(1, 2) if num_colours else parts[1].flatten(1, 2)


@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS.keys())
def test_normalised_planes_are_the_same_under_autocast_and_at_lower_precision(channels):
    pixels = torch.from_numpy(frames(2, batch=40))
    decoder = Decoder(spec(*channels), normalize=True)
    decoder.observe(pixels // 2)
    exact = decoder(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = decoder(pixels)
    decoder.palette = decoder.palette.bfloat16()  # Statistics stay in float64.
    as_weights = decoder(pixels)
    assert under_autocast.dtype == as_weights.dtype == torch.bfloat16
    assert torch.equal(under_autocast, as_weights)
    torch.testing.assert_close(as_weights.float(), exact, rtol=0.01, atol=0.02)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS.keys())
def test_planes_that_are_looked_up_one_by_one_are_the_same(channels, normalize):
    decoder = Decoder(spec(*channels), normalize=normalize)
    images = torch.from_numpy(frames(len(channels)))
    decoder.observe(images)
    expected = decoder(images)
    decoder.by_plane = True
    torch.testing.assert_close(decoder(images), expected, rtol=0, atol=1e-6)


def test_without_statistics_normalisation_changes_nothing():
    pixels = torch.from_numpy(frames(2))
    plain, decoder = (Decoder(spec("palette", "depth"), normalize=n) for n in (False, True))
    torch.testing.assert_close(decoder(pixels), plain(pixels), rtol=0, atol=1e-6)


def test_a_channel_that_varies_for_the_first_time_is_clipped():
    pixels = torch.full((3, 6, 7, 1), 100, dtype=torch.uint8)
    decoder = Decoder(spec("labels"), normalize=True)
    decoder.observe(pixels)
    assert decoder(pixels).abs().max() < 1e-3
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    assert decoder(pixels)[0, 0, 0, :2].tolist() == [-10.0, 10.0]


def test_statistics_of_many_frames_are_those_of_a_sample():
    pixels = torch.from_numpy(frames(1, size=(8, 8), batch=5000))
    decoder = Decoder(spec("gray", size=(8, 8)), normalize=True)
    decoder.observe(pixels)
    statistics = decoder.seen["others"]
    assert 200 * 64 <= statistics.count < 5000 * 64
    everything = pixels.double() / 255
    assert float(statistics.mean) == pytest.approx(float(everything.mean()), abs=0.02)
    assert float(statistics.deviation) == pytest.approx(float(everything.std()), abs=0.02)


@pytest.mark.parametrize(("steps", "num_envs"), [(128, 32), (256, 16), (64, 12), (100, 10)])
def test_statistics_of_a_rollout_are_those_of_all_environments(steps, num_envs):
    shown = torch.linspace(0, 255, num_envs).round().to(torch.uint8)  # Each shows one gray.
    pixels = shown.expand(steps, num_envs).reshape(-1, 1, 1, 1).expand(-1, 8, 8, 1)
    decoder = Decoder(spec("gray", size=(8, 8)), normalize=True)
    decoder.observe(pixels)
    grays = shown.double() / 255
    assert float(decoder.seen["others"].mean) == pytest.approx(float(grays.mean()), abs=0.01)
    deviation = float(grays.std(correction=0))
    assert float(decoder.seen["others"].deviation) == pytest.approx(deviation, abs=0.01)


def test_a_wrong_number_of_channels_is_an_error():
    with pytest.raises(
        ValueError, match=r"2 channels are named, and images of shape \(6, 7, 3\) have 3"
    ):
        ImageSpec(shape=(6, 7, 3), channels=("red", "green"))


@pytest.mark.parametrize("colours", [0, 255])
def test_a_palette_without_256_colours_is_an_error(colours):
    with pytest.raises(ValueError, match=f"must have 256 colours, got {colours}"):
        ImageSpec(shape=(6, 7, 1), channels=("palette",), palette=((0, 0, 0),) * colours)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("block", "size"), [(1, (6, 7)), (2, (6, 8)), (4, (9, 11))])
@pytest.mark.parametrize(
    "channels", [*CHANNELS.values(), ("depth", "palette", "labels", "palette")]
)
def test_pixels_are_decoded_as_the_images_they_are_of(channels, block, size, normalize, precision):
    images = torch.from_numpy(frames(len(channels), size))
    decoder = Decoder(spec(*channels, size=size), block, normalize)
    decoder.observe(images)
    pixels = decoder.pixels(images)
    assert pixels.shape == (5, *size, spec(*channels, size=size).num_planes)
    plain = Decoder(spec(*channels, size=size))
    assert torch.equal(pixels.permute(0, 3, 1, 2), plain(images))
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        assert torch.equal(decoder(pixels), decoder(images))


def test_pixels_have_the_gradient_of_what_is_decoded():
    """Decoding is linear: the gradient says exactly what any small change does."""
    decoder = Decoder(spec("palette", "depth", size=(8, 8)), 4, normalize=True)
    images = torch.from_numpy(frames(2, (8, 8)))
    decoder.observe(images)
    pixels = decoder.pixels(images).requires_grad_()
    decoded = decoder(pixels)
    weights, change = torch.randn_like(decoded), 1e-2 * torch.randn_like(pixels)
    (gradient,) = torch.autograd.grad((weights * decoded).sum(), pixels)
    expected = (weights * (decoder(pixels + change) - decoded)).sum()
    torch.testing.assert_close((gradient * change).sum(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("block", [1, 2])
def test_a_kept_table_of_colours_is_used_until_the_next_one(block):
    images = torch.from_numpy(frames(1, size=(6, 8)))
    decoder = Decoder(spec("palette", size=(6, 8)), block=block, normalize=True)
    decoder.observe(images)
    before = decoder(images)
    decoder.keep_weight()
    address = decoder._kept.data_ptr()
    decoder.palette.mul_(0.5)
    assert torch.equal(decoder(images), before)
    decoder.keep_weight()
    after = decoder(images)
    assert decoder._kept.data_ptr() == address
    decoder._kept = None
    assert torch.equal(decoder(images), after)
    assert not torch.equal(after, before)
