"""Tests of `perception.memory.memory`, and tests for every memory.

Axes: T time, N environments.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perception.memory import MEMORIES, MemoryConfig, NoMemory, NoMemoryConfig
from tests.agents.synthetic import small_config

INPUTS, SIZE = 3, 5


def make(name, seed=0):
    """Return a memory with random weights; biases are 0 at first, which would hide errors."""
    torch.manual_seed(seed)
    config = small_config(memory=name, memory_size=SIZE).memory
    memory = MEMORIES[name][1](config, INPUTS)
    for parameter in memory.parameters():
        nn.init.normal_(parameter, std=0.7)
    return memory


def draw_sequence(memory, starts, seed=0):
    """Return random features, (T, N, INPUTS), and a random state, both with gradients."""
    generator = torch.Generator().manual_seed(seed)
    steps, num_envs = starts.shape
    rows, size = memory.state_shape
    features = torch.randn(steps, num_envs, INPUTS, generator=generator)
    state = torch.randn(rows, num_envs, size, generator=generator)
    return features.requires_grad_(), state.requires_grad_()


def starts_at(*steps, total=7):
    """Return (total, 3) bool, true in all environments at some steps."""
    starts = torch.zeros(total, 3, dtype=torch.bool)
    starts[list(steps)] = True
    return starts


@st.composite
def episode_starts(draw):
    steps, num_envs = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    cells = draw(st.lists(st.booleans(), min_size=steps * num_envs, max_size=steps * num_envs))
    return torch.tensor(cells).reshape(steps, num_envs)


@pytest.mark.parametrize("name", MEMORIES)
@settings(max_examples=25, deadline=None)
@given(starts=episode_starts(), seed=st.integers(0, 2**31))
def test_a_sequence_equals_its_steps_one_by_one(name, starts, seed):
    memory = make(name)
    features, state = draw_sequence(memory, starts, seed)
    outputs, after = memory(features, state, starts)
    stepped, now = [], state
    for t in range(len(starts)):
        # The state is cleared here, and not by the memory.
        now = torch.where(starts[t][None, :, None], torch.zeros(()), now)
        output, now = memory(features[t : t + 1], now, torch.zeros_like(starts[t : t + 1]))
        stepped.append(output)
    torch.testing.assert_close(outputs, torch.cat(stepped), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after, now, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        without_grad, after_without_grad = memory(features, state, starts)
    torch.testing.assert_close(without_grad, outputs)
    torch.testing.assert_close(after_without_grad, after)


@pytest.mark.parametrize("name", MEMORIES)
def test_two_halves_equal_the_whole(name):
    memory, starts = make(name), starts_at(2, 5)
    features, state = draw_sequence(memory, starts)
    whole, after = memory(features, state, starts)
    first, between = memory(features[:4], state, starts[:4])
    second, after_halves = memory(features[4:], between, starts[4:])
    torch.testing.assert_close(torch.cat((first, second)), whole)
    torch.testing.assert_close(after_halves, after)


@pytest.mark.parametrize("name", MEMORIES)
def test_steps_before_an_episode_have_no_influence_on_it(name):
    memory, starts = make(name), starts_at(3)
    features, state = draw_sequence(memory, starts)
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


@pytest.mark.parametrize("name", MEMORIES)
def test_arguments_are_not_changed(name):
    memory, starts = make(name), starts_at(0, 3)
    features, state = draw_sequence(memory, starts)
    before = [tensor.clone() for tensor in (features, state, starts)]
    memory(features, state, starts)
    for tensor, copy in zip((features, state, starts), before, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize("name", MEMORIES)
def test_shapes_are_those_of_the_attributes(name):
    memory = make(name)
    rows, size = memory.state_shape
    state = memory.initial_state(4)
    assert state.shape == (rows, 4, size)
    assert state.dtype == torch.float32
    assert not state.any()
    assert memory.is_recurrent == (rows > 0)
    outputs, after = memory(torch.randn(6, 4, INPUTS), state, torch.zeros(6, 4, dtype=torch.bool))
    assert outputs.shape == (6, 4, memory.num_features)
    assert after.shape == state.shape


@pytest.mark.parametrize("name", MEMORIES)
def test_the_default_configuration_works(name):
    kind, network = MEMORIES[name]
    assert issubclass(kind, MemoryConfig)
    memory = network(kind(), INPUTS)
    starts = torch.zeros(1, 2, dtype=torch.bool)
    outputs, _ = memory(torch.randn(1, 2, INPUTS), memory.initial_state(2), starts)
    assert outputs.shape == (1, 2, memory.num_features)


def test_without_memory_features_and_state_are_returned_unchanged():
    memory = NoMemory(NoMemoryConfig(), INPUTS)
    features, state = torch.randn(4, 2, INPUTS), memory.initial_state(2)
    outputs, after = memory(features, state, torch.ones(4, 2, dtype=torch.bool))
    assert outputs is features
    assert after is state
    assert state.shape == (0, 2, 0)
    assert not list(memory.parameters())
