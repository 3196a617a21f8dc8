"""Tests of `perception.perception`."""

from __future__ import annotations

import warnings

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


MEMORIES = ["none", "lstm", "gru"]


def perceive(precision, *, specs=SPECS, encoder="nature", memory="none", seed=0):
    """Perceive a sequence; give perception, features, the state afterwards, and every gradient."""
    torch.manual_seed(seed)
    config = PerceptionConfig(encoder=encoder, memory=memory, memory_size=6, layers=LAYERS)
    perception = Perception(specs, config)
    perception.precision = precision
    obs, state = observe(6, 3), perception.memory.initial_state(3)
    starts = torch.zeros(6, 3, dtype=torch.bool)
    starts[3, 1] = True
    features, after = perception(obs, state, starts)
    features.square().sum().backward()
    gradients = {name: p.grad for name, p in perception.named_parameters()}
    return perception, features.detach(), after.detach(), gradients


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("encoder", ["nature", "impala", "mlp"])
def test_a_lower_precision_changes_little_and_nothing_that_is_handed_on(encoder, memory):
    _, features, after, gradients = perceive(torch.float32, encoder=encoder, memory=memory)
    perception, *lower = perceive(torch.bfloat16, encoder=encoder, memory=memory)
    for rounded, exact in zip(lower, (features, after), strict=False):
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0.03)
    assert not torch.equal(lower[0], features)
    assert {p.dtype for p in perception.parameters()} == {torch.float32}
    whole = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    for name, gradient in lower[2].items():
        assert gradient.dtype == torch.float32, name
        exact = gradients[name]
        # Where rounding moves a number across a kink, its gradient jumps.
        assert (gradient - exact).norm() <= 0.15 * exact.norm() + 0.02 * whole, name


@pytest.mark.parametrize("memory", MEMORIES)
def test_images_alone_are_encoded_at_a_lower_precision(memory):
    torch.manual_seed(0)
    config = PerceptionConfig(memory=memory, memory_size=6, layers=LAYERS)
    perception = Perception(SPECS, config)
    perception.precision = torch.bfloat16
    dtypes = {}
    for name, module in [*perception.encoders.items(), ("memory", perception.memory)]:

        def remember(_, given, made, name=name):
            dtypes[name] = [
                part.dtype for part in (*given, *made) if isinstance(part, torch.Tensor)
            ]

        module.register_forward_hook(remember)
    state = perception.memory.initial_state(3)
    perception(observe(6, 3), state, torch.zeros(6, 3, dtype=torch.bool))
    # Hooks see a batch as its rows.
    assert set(dtypes["screen"]) == {torch.uint8, torch.bfloat16}
    assert set(dtypes["variables"]) == {torch.float32}
    assert set(dtypes["memory"]) == {torch.float32, torch.bool}


def test_vectors_beside_images_are_encoded_as_before_bit_for_bit():
    _, exact, *_ = perceive(torch.float32)
    _, rounded, *_ = perceive(torch.bfloat16)
    assert not torch.equal(rounded[..., :7], exact[..., :7])
    assert torch.equal(rounded[..., 7:], exact[..., 7:])


@pytest.mark.parametrize("memory", MEMORIES)
def test_vectors_alone_are_perceived_as_before_bit_for_bit(memory):
    specs = {"variables": SPECS["variables"]}
    _, features, after, gradients = perceive(torch.float32, specs=specs, memory=memory)
    _, *lower = perceive(torch.bfloat16, specs=specs, memory=memory)
    assert torch.equal(lower[0], features)
    assert torch.equal(lower[1], after)
    assert all(torch.equal(lower[2][name], gradients[name]) for name in gradients)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_precision_is_no_reason_to_warn(precision):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        perceive(precision, memory="lstm")
    assert not torch.is_autocast_enabled("cpu")
