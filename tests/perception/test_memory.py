"""Tests of `perception.memory`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perception.memory import GRU, LSTM, MEMORIES, Memory

INPUTS, SIZE = 3, 5
RECURRENT = {"lstm": LSTM, "gru": GRU}


def make(kind, seed=0):
    torch.manual_seed(seed)
    memory = RECURRENT[kind](INPUTS, SIZE)
    for parameter in memory.parameters():  # biases are 0 at first, which would hide errors
        nn.init.normal_(parameter, std=0.7)
    return memory


def step_by_step(memory, features, state, starts):
    """Run the cells one step at a time, clearing the state by hand."""
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


def draw_sequence(memory, starts, seed):
    generator = torch.Generator().manual_seed(seed)
    steps, num_envs = starts.shape
    features = torch.randn(steps, num_envs, INPUTS, generator=generator)
    state = torch.randn(memory.state_shape[0], num_envs, SIZE, generator=generator)
    return features.requires_grad_(), state.requires_grad_()


def gradients(memory, features, state, outputs, after, seed):
    """Differentiate a random function of outputs and final state by everything."""
    generator = torch.Generator().manual_seed(seed + 1)
    loss = (outputs * torch.randn(outputs.shape, generator=generator)).sum()
    loss = loss + (after * torch.randn(after.shape, generator=generator)).sum()
    return torch.autograd.grad(loss, [features, state, *memory.parameters()])


def assert_equals_step_by_step(memory, starts, seed=0):
    features, state = draw_sequence(memory, starts, seed)
    outputs, after = memory(features, state, starts)
    expected_outputs, expected_after = step_by_step(memory, features, state, starts)
    torch.testing.assert_close(outputs, expected_outputs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after, expected_after, rtol=1e-4, atol=1e-5)
    ours = gradients(memory, features, state, outputs, after, seed)
    theirs = gradients(memory, features, state, expected_outputs, expected_after, seed)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


@st.composite
def episode_starts(draw):
    steps, num_envs = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    cells = draw(st.lists(st.booleans(), min_size=steps * num_envs, max_size=steps * num_envs))
    return torch.tensor(cells).reshape(steps, num_envs)


@pytest.mark.parametrize("kind", RECURRENT)
@settings(max_examples=60, deadline=None)
@given(starts=episode_starts(), seed=st.integers(0, 2**31))
def test_a_sequence_equals_its_steps_one_by_one(kind, starts, seed):
    assert_equals_step_by_step(make(kind), starts, seed)


def where(*steps, total=7):
    starts = torch.zeros(total, 3, dtype=torch.bool)
    starts[list(steps)] = True
    return starts


STARTS = {
    "nowhere": where(),
    "first step": where(0),
    "last step": where(6),
    "first and last step": where(0, 6),
    "neighbouring steps": where(2, 3, 4),
    "every step": where(*range(7)),
    "one environment only": torch.arange(21).reshape(7, 3) == 10,
    "a single step": where(0, total=1),
    "a single step that goes on": where(total=1),
}


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("starts", STARTS.values(), ids=STARTS.keys())
def test_episodes_may_start_anywhere(kind, starts):
    assert_equals_step_by_step(make(kind), starts)


@pytest.mark.parametrize("kind", RECURRENT)
def test_two_halves_equal_the_whole(kind):
    memory, starts = make(kind), where(2, 5)
    features, state = draw_sequence(memory, starts, 0)
    whole, after = memory(features, state, starts)
    first, between = memory(features[:4], state, starts[:4])
    second, after_halves = memory(features[4:], between, starts[4:])
    torch.testing.assert_close(torch.cat((first, second)), whole)
    torch.testing.assert_close(after_halves, after)


@pytest.mark.parametrize("kind", RECURRENT)
def test_what_came_before_an_episode_does_not_matter(kind):
    memory, starts = make(kind), where(3)
    features, state = draw_sequence(memory, starts, 0)
    outputs, after = memory(features, state, starts)
    changed = features.clone()
    changed[:3] += 1.0
    others, after_others = memory(changed, state * 2, starts)
    torch.testing.assert_close(others[3:], outputs[3:])
    torch.testing.assert_close(after_others, after)
    assert not torch.allclose(others[:3], outputs[:3])
    (gradient,) = torch.autograd.grad(outputs[3:].sum(), features)
    assert (gradient[:3] == 0).all()
    assert (gradient[3:].abs().sum((0, 2)) > 0).all()


@pytest.mark.parametrize("kind", RECURRENT)
def test_products_may_be_of_lower_precision_but_the_state_is_not(kind):
    memory, starts = make(kind), where(0, 3)
    features, state = draw_sequence(memory, starts, 0)
    outputs, _ = memory(features, state, starts)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, rounded_after = memory(features, state, starts)
        rounded.sum().backward()
    assert rounded.dtype == rounded_after.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in memory.parameters())
    torch.testing.assert_close(rounded, outputs, rtol=0, atol=0.03)
    assert not torch.equal(rounded, outputs)


@pytest.mark.parametrize("kind", RECURRENT)
def test_nothing_given_is_changed(kind):
    memory, starts = make(kind), where(0, 3)
    features, state = draw_sequence(memory, starts, 0)
    before = [tensor.clone() for tensor in (features, state, starts)]
    memory(features, state, starts)
    for tensor, copy in zip((features, state, starts), before, strict=True):
        assert torch.equal(tensor, copy)


def test_no_memory_passes_features_and_state_unchanged():
    memory = Memory(INPUTS, SIZE)
    features, state = torch.randn(4, 2, INPUTS), memory.initial_state(2)
    outputs, after = memory(features, state, where(1, total=4)[:, :2])
    assert outputs is features
    assert after is state
    assert not list(memory.parameters())


@pytest.mark.parametrize(("kind", "rows"), [("none", 0), ("lstm", 2), ("gru", 1)])
def test_shapes_are_what_the_memory_says(kind, rows):
    memory = MEMORIES[kind](INPUTS, SIZE)
    state = memory.initial_state(4)
    assert state.shape == (rows, 4, SIZE if rows else 0)
    assert state.dtype == torch.float32
    assert not state.any()
    assert memory.is_recurrent == (rows > 0)
    outputs, after = memory(torch.randn(6, 4, INPUTS), state, torch.zeros(6, 4, dtype=torch.bool))
    assert outputs.shape == (6, 4, memory.num_features)
    assert after.shape == state.shape


@pytest.mark.parametrize(("num_inputs", "hidden_size"), [(5, 8), (8, 8), (16, 8)])
@pytest.mark.parametrize(("name", "num_gates"), [("lstm", 4), ("gru", 3)])
def test_the_weights_of_each_gate_are_orthogonal_by_themselves(
    name, num_gates, num_inputs, hidden_size
):
    torch.manual_seed(0)
    memory = MEMORIES[name](num_inputs, hidden_size)
    for parameter in (memory.layer.weight_ih_l0, memory.layer.weight_hh_l0):
        gates = parameter.detach().chunk(num_gates)
        for gate in gates:
            # Rows, or columns where those are fewer, have length 1 and stand upright on each other.
            short = gate if gate.shape[0] <= gate.shape[1] else gate.T
            torch.testing.assert_close(short @ short.T, torch.eye(len(short)), atol=1e-5, rtol=0)
        assert not torch.equal(gates[0], gates[1])


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_only_the_forget_gate_begins_with_a_bias(monkeypatch, bias):
    monkeypatch.setattr("perception.memory.FORGET_BIAS", bias)
    layer = MEMORIES["lstm"](5, 8).layer
    expected = torch.zeros(4, 8)
    expected[1] = bias  # PyTorch's order: input, forget, cell, output
    assert torch.equal((layer.bias_ih_l0 + layer.bias_hh_l0).detach(), expected.flatten())
    gru = MEMORIES["gru"](5, 8).layer
    assert not torch.cat((gru.bias_ih_l0, gru.bias_hh_l0)).any()
