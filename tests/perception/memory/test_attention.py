"""Tests of `perception.memory.attention`, beyond those for every memory.

Axes: T time, N environments, W window.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perception.memory import AttentionMemory, AttentionMemoryConfig

WINDOW = 3


def make(**sizes):
    torch.manual_seed(0)
    config = AttentionMemoryConfig(
        **{"memory_size": 8, "memory_heads": 2, "memory_window": WINDOW, **sizes}
    )
    memory = AttentionMemory(config, 5)
    for parameter in memory.parameters():
        nn.init.normal_(parameter, std=0.4)
    return memory


def starts_at(*steps, total=8):
    starts = torch.zeros(total, 1, dtype=torch.bool)
    starts[list(steps)] = True
    return starts


def plain(memory, features, starts):
    """Compute one layer from its definition, step by step over explicit lists."""
    (layer,) = memory.layers
    stream, outputs, episode = memory.embed(features), [], []
    for t in range(len(features)):
        episode = [t] if starts[t] else [*episode, t]
        seen = stream[episode[-WINDOW - 1 :], 0]  # The step itself and the window before it.
        normal = layer.before_attention(seen)
        attention, num_heads = layer.attention, layer.attention.num_heads
        query = attention.query(normal[-1:]).view(num_heads, -1)
        keys = attention.key(normal).view(len(seen), num_heads, -1)
        values = attention.value(normal).view(len(seen), num_heads, -1)
        heads = []
        for h in range(num_heads):
            scores = keys[:, h] @ query[h] / query.shape[1] ** 0.5
            distances = torch.arange(len(seen) - 1, -1, -1)
            weights = (scores + layer.distances[h, distances]).softmax(0)
            heads.append(weights @ values[:, h])
        attended = attention.output(torch.cat(heads)).relu()
        now = layer.after_attention(stream[t, 0], attended)
        outputs.append(layer.after_mlp(now, layer.mlp(layer.before_mlp(now)).relu()))
    return torch.stack(outputs)


def test_it_equals_its_definition():
    memory, starts = make(), starts_at(0, 5)
    features = torch.randn(8, 1, 5)
    outputs, _ = memory(features, memory.initial_state(1), starts)
    torch.testing.assert_close(outputs[:, 0], plain(memory, features, starts))


def test_a_gate_is_that_of_a_gru():
    (layer,) = make().layers
    gate = layer.after_attention
    cell = nn.GRUCell(8, 8)
    with torch.no_grad():
        reset, opening, proposed = gate.of_update.weight.chunk(3)
        cell.weight_ih.copy_(torch.cat((reset, -opening, proposed)))
        reset_bias, opening_bias, proposed_bias = gate.of_update.bias.chunk(3)
        # PyTorch's update gate keeps the state where ours lets the update in.
        cell.bias_ih.copy_(torch.cat((reset_bias, 2.0 - opening_bias, proposed_bias)))
        cell.bias_hh.zero_()
        reset, opening = gate.of_stream.weight.chunk(2)
        gate.of_stream.bias.zero_()
        cell.weight_hh.copy_(torch.cat((reset, -opening, torch.eye(8))))
    stream, update = torch.randn(4, 8), torch.randn(4, 8)
    # PyTorch resets after the product with the recurrent weight; with the identity, it is the same.
    with torch.no_grad():
        gate.of_reset.weight.copy_(torch.eye(8))
    torch.testing.assert_close(gate(stream, update), cell(update, stream))


def test_what_is_older_than_the_window_has_no_influence():
    memory = make()
    features = torch.randn(8, 1, 5)
    starts = starts_at(0)
    outputs, _ = memory(features, memory.initial_state(1), starts)
    changed = features.clone()
    changed[2] += 1.0
    others, _ = memory(changed, memory.initial_state(1), starts)
    differs = (outputs != others).any(-1)[:, 0].tolist()
    assert differs == [False, False, True, True, True, True, False, False]
    # A second layer looks back further, through the first.
    deep = make(memory_layers=2)
    outputs, _ = deep(features, deep.initial_state(1), starts)
    others, _ = deep(changed, deep.initial_state(1), starts)
    assert (outputs != others).any(-1)[:, 0].tolist() == [False, False, *[True] * 6]


@pytest.mark.parametrize("layers", [1, 2])
def test_attention_maps_cover_the_episode_so_far(layers):
    memory, starts = make(memory_layers=layers), starts_at(4)
    features = torch.randn(8, 1, 5)
    state = memory.initial_state(1)
    _, state = memory(torch.randn(2, 1, 5), state, torch.zeros(2, 1, dtype=torch.bool))
    maps = memory.attention_maps(features, state, starts)
    assert maps.shape == (layers, 1, 2, 8, WINDOW + 8)
    torch.testing.assert_close(maps.sum(-1), torch.ones(layers, 1, 2, 8))
    seen = (maps[0, 0, 0] > 0).int().tolist()
    assert seen[0] == [0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]  # Two env steps are in the window.
    assert seen[2] == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert seen[4] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]  # An episode starts.
    assert seen[6] == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"memory_window": 0}, "memory_window must be at least 1"),
        ({"memory_window": 2**20}, "a window of 1,048,576 env steps .* is too large"),
        ({"memory_size": 10}, r"memory_size .10. must be a multiple of memory_heads .4."),
    ],
)
def test_sizes_are_checked(sizes, message):
    with pytest.raises(ValueError, match=message):
        AttentionMemoryConfig(**sizes)
