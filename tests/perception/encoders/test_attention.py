"""Tests of `perception.encoders.attention`, beyond those for every encoder."""

from __future__ import annotations

import pytest
import torch

from perception.encoders import AttentionConfig, VisionTransformer


def make(height=60, width=80, **sizes):
    torch.manual_seed(0)
    return VisionTransformer(AttentionConfig(**sizes), (3, height, width))


def test_there_is_a_token_for_every_eight_by_eight_pixels():
    module = make()
    assert module.positions.shape == (8 * 10, 64)
    assert make(72, 128).positions.shape == (9 * 16, 64)


def test_attention_maps_are_distributions_over_the_grid():
    module = make()
    maps = module.attention_maps(torch.rand(2, 3, 60, 80))
    assert maps.shape == (2, 8, 8, 10)
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(2, 8))


def test_maps_show_where_a_query_looks():
    module = make(token_layers=1)
    images = torch.zeros(1, 3, 60, 80)
    images[..., 24:32, 40:48] = 1.0  # The token in row 3, column 5.
    with torch.no_grad():
        difference = (module._tokens(images) - module._tokens(torch.zeros_like(images)))[0]
        module.queries[0] = 50 * module.pooling.key(difference[3 * 10 + 5][None])[0]
        module.pooling.query.weight.copy_(torch.eye(64))
    seen = module.attention_maps(images)[0, 0]
    assert divmod(int(seen.argmax()), 10) == (3, 5)


def test_places_are_told_apart():
    # Without positions, a transformer with pooling could not tell where something is.
    module = make()
    left, right = torch.zeros(1, 3, 60, 80), torch.zeros(1, 3, 60, 80)
    left[..., 24:32, 16:24], right[..., 24:32, 56:64] = 1.0, 1.0
    assert not torch.allclose(module(left), module(right), atol=1e-4)
    with torch.no_grad():
        module.positions.zero_()
    torch.testing.assert_close(module(left), module(right), rtol=1e-4, atol=1e-4)


def test_tokens_must_be_divisible_among_the_heads():
    with pytest.raises(ValueError, match=r"token_size .10. must be a multiple of token_heads .4."):
        AttentionConfig(token_size=10)
