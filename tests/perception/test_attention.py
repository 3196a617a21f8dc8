"""Tests of `perception.attention`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perception.attention import MultiHeadAttention

SIZE, HEADS = 12, 3


def with_oracle():
    """Return an attention with random weights, and PyTorch's with the same weights."""
    torch.manual_seed(0)
    ours = MultiHeadAttention(SIZE, HEADS)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    oracle = nn.MultiheadAttention(SIZE, HEADS, batch_first=True)
    with torch.no_grad():
        inputs = (ours.query, ours.key, ours.value)
        oracle.in_proj_weight.copy_(torch.cat([layer.weight for layer in inputs]))
        oracle.in_proj_bias.copy_(torch.cat([layer.bias for layer in inputs]))
        oracle.out_proj.weight.copy_(ours.output.weight)
        oracle.out_proj.bias.copy_(ours.output.bias)
    return ours, oracle


@pytest.mark.parametrize("masked", [False, True])
def test_it_equals_pytorchs_attention_with_the_same_weights(masked):
    ours, oracle = with_oracle()
    queries, context = torch.randn(2, 4, SIZE), torch.randn(2, 5, SIZE)
    mask = torch.zeros(4, 5)
    if masked:
        mask[torch.arange(4)[:, None] < torch.arange(5)] = -torch.inf
    bias = mask if masked else None
    output = ours(queries, ours.key(context), ours.value(context), bias)
    expected, weights = oracle(
        queries, context, context, attn_mask=bias, average_attn_weights=False
    )
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)
    found = ours.weights(queries, ours.key(context), bias)
    torch.testing.assert_close(found, weights, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, HEADS, 4))


def test_heads_that_are_joined_in_the_wrong_order_or_not_scaled_would_be_noticed():
    ours, oracle = with_oracle()
    context = torch.randn(2, 5, SIZE)
    expected, _ = oracle(context, context, context)
    split = [ours._split(layer(context)) for layer in (ours.query, ours.key, ours.value)]
    attend = nn.functional.scaled_dot_product_attention
    right = ours.output(attend(*split).transpose(1, 2).flatten(2))
    torch.testing.assert_close(right, expected, rtol=1e-5, atol=1e-5)
    # Heads, keys and widths reshaped without moving the heads' axis first.
    wrong = ours.output(attend(*split).reshape(2, 5, SIZE))
    assert (wrong - expected).abs().max() > 0.1
    unscaled = ours.output(attend(*split, scale=1.0).transpose(1, 2).flatten(2))
    assert (unscaled - expected).abs().max() > 0.1


def test_a_width_must_be_a_multiple_of_the_heads():
    with pytest.raises(ValueError, match="a width of 10 cannot be divided among 3 heads"):
        MultiHeadAttention(10, 3)
