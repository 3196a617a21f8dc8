"""Tests of `perception.encoders.impala`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perception.encoders import ImpalaConfig, ImpalaResNet, PerceptionError


def test_the_network_is_the_published_one():
    # Espeholt et al. 2018, figure 3: three stages of 16, 32 and 32 channels, 15 convolutions.
    module = ImpalaResNet(ImpalaConfig(), (3, 72, 96))
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [16] * 5 + [32] * 10
    assert module.layers[-2].in_features == 32 * 9 * 12


def test_the_smallest_screen_has_8_pixels_a_side():
    config = ImpalaConfig(impala_channels=(2, 2, 2), features=3)
    assert ImpalaResNet(config, (1, 8, 8))(torch.rand(4, 1, 8, 8)).shape == (4, 3)
    for shape in ((7, 100), (100, 7)):
        with pytest.raises(PerceptionError, match="needs at least 8x8"):
            ImpalaResNet(config, (1, *shape))
