"""Tests of `perception.encoders.encoder`, and tests for every encoder."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from perception.encoders import ENCODERS, EncoderConfig, PerceptionError, orthogonal
from perception.encoders.encoder import output_size
from tests.agents.synthetic import small_config


def make(encoder, *input_shape):
    torch.manual_seed(0)
    config = small_config(encoder).encoder
    return ENCODERS[encoder][1](config, input_shape)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(("height", "width"), [(60, 80), (72, 128), (36, 37)])
def test_images_become_features(encoder, height, width):
    module = make(encoder, 4, height, width)
    features = module(torch.rand(5, 4, height, width))
    assert features.shape == (5, module.num_features)
    assert features.dtype == torch.float32


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_weight_gets_a_gradient(encoder):
    module = make(encoder, 3, 40, 44)
    module(torch.rand(8, 3, 40, 44)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_each_image_is_encoded_independently_of_others(encoder):
    module = make(encoder, 1, 48, 48)
    images = torch.rand(6, 1, 48, 48)
    together = module(images)
    alone = torch.cat([module(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_default_configuration_works(encoder):
    kind, network = ENCODERS[encoder]
    assert issubclass(kind, EncoderConfig)
    config = kind()
    module = network(config, (3, 72, 128))
    assert module(torch.rand(1, 3, 72, 128)).shape == (1, module.num_features)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("size", [0, -1])
def test_sizes_must_be_positive(encoder, size):
    config = ENCODERS[encoder][0]()
    for field in fields(config):
        value = getattr(config, field.name)
        wrong = (*value[:-1], size) if isinstance(value, tuple) else size
        with pytest.raises(ValueError, match=rf"^{field.name} must be positive, got"):
            replace(config, **{field.name: wrong})


def test_orthogonal_weights_preserve_lengths():
    torch.manual_seed(0)
    layer = orthogonal(nn.Linear(16, 8), gain=3.0)
    torch.testing.assert_close(layer.weight @ layer.weight.T, 9.0 * torch.eye(8))
    assert not layer.bias.any()
    assert orthogonal(nn.Linear(4, 4, bias=False)).bias is None


def test_the_number_of_outputs_and_the_error_for_small_screens():
    layers = nn.Sequential(nn.Conv2d(3, 5, 4), nn.Flatten())
    assert output_size(layers, (3, 10, 12), smallest=4) == 5 * 7 * 9
    for height, width in ((3, 100), (100, 3)):
        with pytest.raises(PerceptionError, match=f"{height}x{width} is too small") as error:
            output_size(layers, (3, height, width), smallest=4)
        message = str(error.value)
        assert "needs at least 4x4" in message
        assert "--height" in message
        assert "--encoder mlp" in message
        assert "\n" not in message
