"""Tests of `perception.encoders.mlp`."""

from __future__ import annotations

import pytest
import torch

from perception.encoders import MLP, MLPConfig, VectorConfig


@pytest.mark.parametrize(
    ("config", "input_shape"),
    [(VectorConfig(hidden_sizes=(16, 7)), (3,)), (MLPConfig(mlp_sizes=(16, 7)), (2, 4, 5))],
    ids=["vectors", "images"],
)
def test_inputs_become_features_between_minus_1_and_1(config, input_shape):
    module = MLP(config, input_shape)
    features = module(100 * torch.randn(5, *input_shape))
    assert features.shape == (5, 7)
    assert module.num_features == 7
    assert features.abs().max() <= 1


def test_without_layers_vectors_are_returned_unchanged():
    module = MLP(VectorConfig(hidden_sizes=()), (3,))
    vectors = torch.randn(5, 3)
    assert module.num_features == 3
    assert torch.equal(module(vectors), vectors)


def test_the_layers_compute_hyperbolic_tangents():
    torch.manual_seed(0)
    module = MLP(VectorConfig(hidden_sizes=(4, 2)), (3,))
    vectors = torch.randn(5, 3)
    first, second = module.layers[1], module.layers[3]
    expected = (vectors @ first.weight.T + first.bias).tanh()
    expected = (expected @ second.weight.T + second.bias).tanh()
    torch.testing.assert_close(module(vectors), expected)
