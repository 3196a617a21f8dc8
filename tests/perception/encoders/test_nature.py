"""Tests of `perception.encoders.nature`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perception.decode import Decoder, ImageSpec
from perception.encoders import BlockConv2d, NatureCNN, NatureConfig, PerceptionError


def test_the_network_is_the_published_one():
    # Mnih et al. 2015, Methods: input 84x84x4; 32 filters of 8x8 with stride 4, 64 of 4x4 with
    # stride 2, 64 of 3x3 with stride 1; 512 units.
    module = NatureCNN(NatureConfig(), (4, 84, 84))
    convolutions = [layer for layer in module.layers if isinstance(layer, nn.Conv2d)]
    shapes = [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions]
    assert shapes == [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
    last = module.layers[-2]
    assert (last.in_features, last.out_features) == (7 * 7 * 64, 512)


@pytest.mark.parametrize("strides", [(4, 2, 1), (1, 1, 1), (3, 1, 2), (2, 3, 3), (8, 4, 2)])
def test_the_smallest_screen_follows_from_the_strides(strides):
    config = NatureConfig(conv_channels=(2, 2, 2), conv_strides=strides, features=3)
    # The last convolution needs 3 pixels, so the second one 4 + 2 b, so the first one
    # 8 + a (3 + 2 b).
    smallest = 8 + strides[0] * (3 + 2 * strides[1])
    module = NatureCNN(config, (1, smallest, smallest))
    assert module.layers[-2].in_features == 2  # The last convolution has one pixel.
    assert module(torch.rand(4, 1, smallest, smallest)).shape == (4, 3)
    for shape in ((smallest - 1, 100), (100, smallest - 1)):
        with pytest.raises(PerceptionError, match=f"needs at least {smallest}x{smallest}"):
            NatureCNN(config, (1, *shape))
        # The layers would not work either.
        with pytest.raises(RuntimeError, match="Kernel size"):
            module.layers[:6](torch.rand(1, 1, *shape))
    convolutions = [layer for layer in module.layers if isinstance(layer, nn.Conv2d)]
    assert tuple(c.stride[0] for c in convolutions) == strides


@pytest.mark.parametrize(
    ("channels", "size"),
    [
        (("palette",), (72, 128)),
        (("palette", "depth", "palette"), (75, 131)),
        (("gray",), (61, 84)),
    ],
)
def test_blocks_of_pixels_are_encoded_like_the_whole_image(channels, size):
    palette = tuple((i, 255 - i, i * 7 % 256) for i in range(256))
    spec = ImageSpec(shape=(*size, len(channels)), channels=channels, palette=palette)
    torch.manual_seed(0)
    encoder = NatureCNN(NatureConfig(), (spec.num_planes, *size))
    frames = torch.randint(0, 256, (3, *spec.shape), dtype=torch.uint8)
    whole, blocks = (encoder(Decoder(spec, block)(frames)) for block in (1, encoder.block))
    assert encoder.block == 4
    torch.testing.assert_close(blocks, whole, atol=1e-5, rtol=1e-4)
    gradients = [
        torch.autograd.grad(y.square().sum(), list(encoder.parameters())) for y in (whole, blocks)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_blocks_are_not_used_if_the_kernel_is_not_a_multiple_of_the_stride(stride):
    config = NatureConfig(conv_channels=(2, 2, 2), conv_strides=(stride, 1, 1), features=3)
    assert NatureCNN(config, (1, 64, 64)).block == 1


SPEC = ImageSpec(shape=(64, 64, 3))


def make_on_blocks():
    """Return an encoder without gradients, its first layer, and images as blocks."""
    torch.manual_seed(0)
    encoder = NatureCNN(NatureConfig(), (3, 64, 64)).requires_grad_(requires_grad=False)
    frames = torch.randint(0, 256, (2, *SPEC.shape), dtype=torch.uint8)
    assert isinstance(encoder.layers[0], BlockConv2d)
    return encoder, encoder.layers[0], Decoder(SPEC, encoder.block)(frames)


def test_the_weight_for_blocks_follows_the_weight():
    encoder, layer, blocks = make_on_blocks()
    before = encoder(blocks)
    assert torch.equal(encoder(blocks), before)
    layer.weight.mul_(2.0)
    assert not torch.allclose(encoder(blocks), before)


def test_a_kept_weight_changes_only_with_the_next_call_and_keeps_its_address():
    encoder, layer, blocks = make_on_blocks()
    layer.keep_weight()  # Before the first forward pass, this does nothing.
    before = encoder(blocks)
    layer.keep_weight()
    address = layer._kept.data_ptr()
    layer.weight.mul_(2.0)
    assert torch.equal(encoder(blocks), before)
    layer.keep_weight()
    assert layer._kept.data_ptr() == address
    assert not torch.allclose(encoder(blocks), before)
