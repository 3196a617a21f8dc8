"""Tests of `perception.memory.recurrent`, with PyTorch's layers as oracles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perception.memory import GRU, LSTM, GRUConfig, LSTMConfig
from tests.perception.memory.test_memory import draw_sequence, episode_starts, make, starts_at

RECURRENT = {"lstm": (LSTM, LSTMConfig, 4), "gru": (GRU, GRUConfig, 3)}


def step_by_step(memory, features, state, starts):
    """Run PyTorch's layer one step at a time, and clear the state where episodes start."""
    layer = memory.layer
    outputs = []
    for t in range(len(features)):
        state = torch.where(starts[t][None, :, None], torch.zeros(()), state)
        if isinstance(layer, nn.LSTM):
            output, (hidden, cell) = layer(features[t : t + 1], (state[:1], state[1:]))
            state = torch.cat((hidden, cell))
        else:
            output, state = layer(features[t : t + 1], state)
        outputs.append(output[0])
    return torch.stack(outputs), state


def gradients(memory, features, state, outputs, after, seed):
    """Differentiate a random function of outputs and final state by all inputs and parameters."""
    generator = torch.Generator().manual_seed(seed + 1)
    loss = (outputs * torch.randn(outputs.shape, generator=generator)).sum()
    loss = loss + (after * torch.randn(after.shape, generator=generator)).sum()
    return torch.autograd.grad(loss, [features, state, *memory.parameters()])


def assert_equals_pytorch(memory, starts, seed=0):
    features, state = draw_sequence(memory, starts, seed)
    outputs, after = memory(features, state, starts)
    expected_outputs, expected_after = step_by_step(memory, features, state, starts)
    torch.testing.assert_close(outputs, expected_outputs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after, expected_after, rtol=1e-4, atol=1e-5)
    ours = gradients(memory, features, state, outputs, after, seed)
    theirs = gradients(memory, features, state, expected_outputs, expected_after, seed)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", RECURRENT)
@settings(max_examples=40, deadline=None)
@given(starts=episode_starts(), seed=st.integers(0, 2**31))
def test_outputs_and_gradients_equal_pytorchs_layer(name, starts, seed):
    assert_equals_pytorch(make(name), starts, seed)


STARTS = {
    "nowhere": starts_at(),
    "first step": starts_at(0),
    "last step": starts_at(6),
    "first and last step": starts_at(0, 6),
    "neighbouring steps": starts_at(2, 3, 4),
    "every step": starts_at(*range(7)),
    "one environment only": torch.arange(21).reshape(7, 3) == 10,
    "a single step": starts_at(0, total=1),
    "a single step of a longer episode": starts_at(total=1),
}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("starts", STARTS.values(), ids=STARTS.keys())
def test_episodes_may_start_anywhere(name, starts):
    assert_equals_pytorch(make(name), starts)


@pytest.mark.parametrize("name", RECURRENT)
def test_products_may_be_of_lower_precision_but_the_state_is_float32(name):
    memory, starts = make(name), starts_at(0, 3)
    features, state = draw_sequence(memory, starts)
    outputs, _ = memory(features, state, starts)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, rounded_after = memory(features, state, starts)
        rounded.sum().backward()
    assert rounded.dtype == rounded_after.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in memory.parameters())
    torch.testing.assert_close(rounded, outputs, rtol=0, atol=0.03)
    assert not torch.equal(rounded, outputs)


@pytest.mark.parametrize(("num_inputs", "memory_size"), [(5, 8), (8, 8), (16, 8)])
@pytest.mark.parametrize("name", RECURRENT)
def test_the_weights_of_each_gate_are_orthogonal(name, num_inputs, memory_size):
    torch.manual_seed(0)
    network, config, num_gates = RECURRENT[name]
    memory = network(config(memory_size=memory_size), num_inputs)
    for parameter in (memory.layer.weight_ih_l0, memory.layer.weight_hh_l0):
        gates = parameter.detach().chunk(num_gates)
        for gate in gates:
            # Rows, or columns if there are fewer of them, are orthogonal and of length 1.
            short = gate if gate.shape[0] <= gate.shape[1] else gate.T
            torch.testing.assert_close(short @ short.T, torch.eye(len(short)), atol=1e-5, rtol=0)
        assert not torch.equal(gates[0], gates[1])


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_only_the_forget_gate_has_an_initial_bias(monkeypatch, bias):
    monkeypatch.setattr("perception.memory.recurrent.FORGET_BIAS", bias)
    layer = LSTM(LSTMConfig(memory_size=8), 5).layer
    expected = torch.zeros(4, 8)
    expected[1] = bias  # PyTorch's order: input, forget, cell, output.
    assert torch.equal((layer.bias_ih_l0 + layer.bias_hh_l0).detach(), expected.flatten())
    gru = GRU(GRUConfig(memory_size=8), 5).layer
    assert not torch.cat((gru.bias_ih_l0, gru.bias_hh_l0)).any()


@pytest.mark.parametrize("config", [LSTMConfig, GRUConfig])
def test_a_width_that_is_not_positive_is_an_error(config):
    with pytest.raises(ValueError, match=r"^memory_size must be at least 1, got 0$"):
        config(memory_size=0)
