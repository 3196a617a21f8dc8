"""Tests of `perception.perception`."""

from __future__ import annotations

import pytest
import torch

from perception import EncoderConfig, ImageSpec, Perception, PerceptionConfig, VectorSpec

PALETTE = tuple((i, i, i) for i in range(256))
SPECS = {
    "screen": ImageSpec(shape=(40, 44, 2), channels=("palette", "depth"), palette=PALETTE),
    "variables": VectorSpec(size=3),
}
LAYERS = EncoderConfig(hidden_sizes=(5,), conv_channels=(4, 4, 4), impala_channels=(4,), features=7)


def observe(steps, num_envs):
    generator = torch.Generator().manual_seed(0)
    screens = torch.randint(256, (steps, num_envs, 40, 44, 2), generator=generator)
    vectors = torch.randn(steps, num_envs, 3, generator=generator)
    return {"screen": screens.byte(), "variables": vectors}


@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
@pytest.mark.parametrize("encoder", ["nature", "impala", "mlp"])
def test_sequences_of_mixed_observations_become_features(encoder, memory):
    config = PerceptionConfig(encoder=encoder, memory=memory, memory_size=6, layers=LAYERS)
    perception = Perception(SPECS, config)
    state = perception.memory.initial_state(3)
    features, after = perception(observe(4, 3), state, torch.zeros(4, 3, dtype=torch.bool))
    joined = 5 + (5 if encoder == "mlp" else 7)
    assert perception.num_features == (joined if memory == "none" else 6)
    assert features.shape == (4, 3, perception.num_features)
    assert after.shape == state.shape


@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
def test_a_sequence_equals_its_steps_one_by_one(memory):
    torch.manual_seed(0)
    config = PerceptionConfig(memory=memory, memory_size=6, layers=LAYERS)
    perception = Perception(SPECS, config)
    obs, state = observe(6, 3), perception.memory.initial_state(3)
    starts = torch.rand(6, 3) < 0.3
    features, after = perception(obs, state, starts)
    for t in range(6):
        now = {name: part[t : t + 1] for name, part in obs.items()}
        step, state = perception(now, state, starts[t : t + 1])
        torch.testing.assert_close(step[0], features[t], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, after, rtol=1e-4, atol=1e-5)


def test_every_part_of_an_observation_matters():
    torch.manual_seed(0)
    perception = Perception(SPECS, PerceptionConfig(layers=LAYERS))
    obs, starts = observe(1, 1), torch.zeros(1, 1, dtype=torch.bool)
    state = perception.memory.initial_state(1)
    features, _ = perception(obs, state, starts)
    for name in SPECS:
        changed = dict(obs, **{name: obs[name].flip(-1)})
        assert not torch.allclose(perception(changed, state, starts)[0], features)


def test_a_memory_without_width_is_refused():
    with pytest.raises(ValueError, match="memory_size must be at least 1, got 0"):
        PerceptionConfig(memory_size=0)
