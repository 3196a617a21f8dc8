"""Tests of `perception.encoders.impoola`, beyond those for every encoder."""

from __future__ import annotations

import torch
from torch import nn

from perception.encoders import ImpalaConfig, ImpalaResNet, ImpoolaConfig, ImpoolaResNet


def num_weights(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_its_size_does_not_depend_on_that_of_the_screen():
    small, large = (ImpoolaResNet(ImpoolaConfig(), (3, *s)) for s in ((36, 40), (120, 160)))
    assert num_weights(small) == num_weights(large)
    impala = ImpalaResNet(ImpalaConfig(), (3, 120, 160))
    assert num_weights(impala) > 10 * num_weights(large)


def test_it_is_impala_with_averages_of_the_last_maps():
    torch.manual_seed(0)
    module = ImpoolaResNet(ImpoolaConfig(), (3, 36, 40))
    impala = ImpalaResNet(ImpalaConfig(), (3, 36, 40))
    convolutions = len(ImpalaConfig().impala_channels) * 4 + 1
    for ours, theirs in zip(module.layers, impala.layers[:convolutions], strict=False):
        ours.load_state_dict(theirs.state_dict())
    images = torch.rand(4, 3, 36, 40)
    maps = impala.layers[:convolutions](images)
    linear = next(layer for layer in module.layers if isinstance(layer, nn.Linear))
    torch.testing.assert_close(module(images), linear(maps.mean((2, 3))).relu())
