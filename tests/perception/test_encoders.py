"""Tests of `perception.encoders`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perception.decode import Decoder, ImageSpec
from perception.encoders import (
    ENCODERS,
    MLP,
    EncoderConfig,
    ImpalaResNet,
    NatureCNN,
    PerceptionError,
    orthogonal,
)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(("height", "width"), [(60, 80), (72, 128), (84, 84), (36, 37)])
def test_images_become_features(encoder, height, width):
    config = EncoderConfig(features=33, hidden_sizes=(32, 33))
    module = ENCODERS[encoder](config, (4, height, width))
    features = module(torch.rand(5, 4, height, width))
    assert module.num_features == 33
    assert features.shape == (5, 33)
    assert features.dtype == torch.float32


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_weight_takes_part(encoder):
    torch.manual_seed(0)
    config = EncoderConfig(
        conv_channels=(4, 4, 4), impala_channels=(4, 4), hidden_sizes=(9, 9), features=9
    )
    module = ENCODERS[encoder](config, (3, 40, 44))
    module(torch.rand(8, 3, 40, 44)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_images_are_encoded_each_by_itself(encoder):
    torch.manual_seed(0)
    module = ENCODERS[encoder](EncoderConfig(), (1, 48, 48))
    images = torch.rand(6, 1, 48, 48)
    together = module(images)
    alone = torch.cat([module(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_vectors_become_features():
    module = MLP(EncoderConfig(hidden_sizes=(16, 7)), (3,))
    features = module(torch.randn(5, 3))
    assert features.shape == (5, 7)
    assert module.num_features == 7
    assert features.abs().max() <= 1  # tanh


def test_an_mlp_without_layers_passes_numbers_on():
    module = MLP(EncoderConfig(hidden_sizes=()), (3,))
    vectors = torch.randn(5, 3)
    assert module.num_features == 3
    assert torch.equal(module(vectors), vectors)


@pytest.mark.parametrize(("encoder", "smallest"), [(NatureCNN, 36), (ImpalaResNet, 8)])
def test_too_small_a_screen_is_refused_with_what_would_work(encoder, smallest):
    encoder(EncoderConfig(), (1, smallest, smallest))
    for height, width in ((smallest - 1, 100), (100, smallest - 1)):
        with pytest.raises(ValueError, match=f"{height}x{width} is too small") as error:
            encoder(EncoderConfig(), (1, height, width))
        message = str(error.value)
        assert f"needs {smallest}x{smallest}" in message
        assert "--height" in message
        assert "--encoder mlp" in message
        assert "\n" not in message


@pytest.mark.parametrize("strides", [(4, 2, 1), (1, 1, 1), (3, 1, 2), (2, 3, 3), (8, 4, 2)])
def test_the_smallest_screen_follows_from_the_strides(strides):
    config = EncoderConfig(conv_channels=(2, 2, 2), conv_strides=strides, features=3)
    # The last convolution sees 3 pixels, so the second 4 + 2 b, so the first 8 + a (3 + 2 b).
    smallest = 8 + strides[0] * (3 + 2 * strides[1])
    module = NatureCNN(config, (1, smallest, smallest))
    assert module.layers[-2].in_features == 2  # one pixel is left
    assert module(torch.rand(4, 1, smallest, smallest)).shape == (4, 3)
    for shape in ((smallest - 1, 100), (100, smallest - 1)):
        with pytest.raises(PerceptionError, match=f"needs {smallest}x{smallest}"):
            NatureCNN(config, (1, *shape))
        # It would not work indeed.
        with pytest.raises(RuntimeError, match="Kernel size"):
            module.layers[:6](torch.rand(1, 1, *shape))
    convolutions = [layer for layer in module.layers if isinstance(layer, nn.Conv2d)]
    assert tuple(c.stride[0] for c in convolutions) == strides


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_sizes": (64, 0)},
        {"conv_channels": (32, -1, 64)},
        {"conv_strides": (4, 0, 1)},
        {"conv_strides": (4, 2, -1)},
        {"impala_channels": (0,)},
        {"features": 0},
    ],
    ids=str,
)
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match="must be positive"):
        EncoderConfig(**sizes)


def test_orthogonal_weights_keep_lengths():
    torch.manual_seed(0)
    layer = orthogonal(nn.Linear(16, 8), gain=3.0)
    torch.testing.assert_close(layer.weight @ layer.weight.T, 9.0 * torch.eye(8))
    assert not layer.bias.any()
    assert orthogonal(nn.Linear(4, 4, bias=False)).bias is None


def test_the_nature_network_is_the_published_one():
    # Mnih et al. 2015, Methods: 84x84x4 in; 32 of 8x8 by 4, 64 of 4x4 by 2, 64 of 3x3 by 1; 512.
    module = NatureCNN(EncoderConfig(), (4, 84, 84))
    convolutions = [layer for layer in module.layers if isinstance(layer, nn.Conv2d)]
    shapes = [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions]
    assert shapes == [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
    last = module.layers[-2]
    assert (last.in_features, last.out_features) == (7 * 7 * 64, 512)


def test_the_impala_network_is_the_published_one():
    # Espeholt et al. 2018, figure 3: three stages of 16, 32, 32 channels, 15 convolutions.
    module = ImpalaResNet(EncoderConfig(), (3, 72, 96))
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [16] * 5 + [32] * 10
    assert module.layers[-2].in_features == 32 * 9 * 12


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
    encoder = NatureCNN(EncoderConfig(), (spec.num_planes, *size))
    frames = torch.randint(0, 256, (3, *spec.shape), dtype=torch.uint8)
    whole, blocks = (encoder(Decoder(spec, block)(frames)) for block in (1, encoder.block))
    assert encoder.block == 4
    torch.testing.assert_close(blocks, whole, atol=1e-5, rtol=1e-4)
    gradients = [
        torch.autograd.grad(y.square().sum(), list(encoder.parameters())) for y in (whole, blocks)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, atol=1e-3, rtol=1e-3)


def test_weights_on_blocks_follow_the_weights():
    encoder = NatureCNN(EncoderConfig(), (3, 64, 64)).requires_grad_(requires_grad=False)
    spec = ImageSpec(shape=(64, 64, 3))
    blocks = Decoder(spec, encoder.block)(torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8))
    before = encoder(blocks)
    assert torch.equal(encoder(blocks), before)
    encoder.layers[0].weight.mul_(2.0)
    assert not torch.allclose(encoder(blocks), before)
