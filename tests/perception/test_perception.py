"""Tests of `perception.perception`."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perception import ENCODERS, MEMORIES, ImageSpec, Perception, PerceptionConfig, VectorSpec
from perception.encoders import VectorConfig
from perception.lookup import UnknownNameError
from tests.agents.synthetic import small_config

PALETTE = tuple((i, i, i) for i in range(256))
SPECS = {
    "screen": ImageSpec(shape=(40, 44, 2), channels=("palette", "depth"), palette=PALETTE),
    "variables": VectorSpec(size=3),
}
VECTOR_FEATURES = 5


def plain_config(encoder="nature", memory="none"):
    return replace(
        small_config(encoder, memory), vectors=VectorConfig(hidden_sizes=(VECTOR_FEATURES,))
    )


def make(*, specs=SPECS, encoder="nature", memory="none", **options):
    torch.manual_seed(0)
    return Perception(specs, plain_config(encoder, memory), **options)


def observe(steps, num_envs):
    generator = torch.Generator().manual_seed(0)
    screens = torch.randint(256, (steps, num_envs, 40, 44, 2), generator=generator)
    vectors = torch.randn(steps, num_envs, 3, generator=generator)
    return {"screen": screens.byte(), "variables": vectors}


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_sequences_of_mixed_observations_become_features(encoder, memory):
    perception = make(encoder=encoder, memory=memory)
    state = perception.memory.initial_state(3)
    features, after = perception(observe(4, 3), state, torch.zeros(4, 3, dtype=torch.bool))
    joined = perception.num_image_features + VECTOR_FEATURES
    encoded = perception.encode({name: part[0] for name, part in observe(4, 3).items()})
    assert encoded.shape == (3, joined)
    if memory == "none":
        assert perception.num_features == joined
    assert features.shape == (4, 3, perception.num_features)
    assert features.dtype == torch.float32
    assert after.shape == state.shape


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_sequence_equals_its_steps_one_by_one(memory):
    perception = make(memory=memory)
    obs, state = observe(6, 3), perception.memory.initial_state(3)
    starts = torch.rand(6, 3) < 0.3
    features, after = perception(obs, state, starts)
    for t in range(6):
        now = {name: part[t : t + 1] for name, part in obs.items()}
        step, state = perception(now, state, starts[t : t + 1])
        torch.testing.assert_close(step[0], features[t], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_step_equals_a_sequence_of_length_1_bit_for_bit(memory):
    perception = make(memory=memory, precision=torch.bfloat16)
    obs, state = observe(1, 3), torch.randn_like(perception.memory.initial_state(3))
    starts = torch.tensor([[False, True, False]])
    features, after = perception(obs, state, starts)
    now = {name: part[0] for name, part in obs.items()}
    step, state = perception.step(now, state, starts[0])
    assert torch.equal(step, features[0])
    assert torch.equal(state, after)


def test_every_part_of_an_observation_has_an_influence():
    perception = make()
    obs, starts = observe(1, 1), torch.zeros(1, 1, dtype=torch.bool)
    state = perception.memory.initial_state(1)
    features, _ = perception(obs, state, starts)
    for name in SPECS:
        changed = dict(obs, **{name: obs[name].flip(-1)})
        assert not torch.allclose(perception(changed, state, starts)[0], features)


def test_some_parts_can_be_encoded_without_others():
    perception = make()
    obs = {name: part[0] for name, part in observe(1, 3).items()}
    whole = perception.encode(obs)
    images, vectors = (perception.encode({name: obs[name]}) for name in SPECS)
    assert images.shape == (3, perception.num_image_features)
    assert torch.equal(torch.cat((images, vectors), -1), whole)
    assert perception.image_names == ["screen"]


def test_the_configuration_is_stored_with_names():
    config = small_config("impala", "gru")
    assert (config.encoder_name, config.memory_name) == ("impala", "gru")
    assert json.loads(json.dumps(config.as_dict())) == {
        "encoder": {"name": "impala", "impala_channels": [4, 4], "features": 16},
        "memory": {"name": "gru", "memory_size": 6},
        "vectors": {"hidden_sizes": [8]},
        "sound": {"sound_input": "spectrogram", "sound_features": 8, "sound_bands": 4},
        "text": {"text_features": 8, "embedding_size": 8},
        "layer_norm": False,
    }
    default = PerceptionConfig()
    assert (default.encoder_name, default.memory_name) == ("nature", "none")


def test_an_encoder_that_is_not_registered_is_an_error():
    with pytest.raises(UnknownNameError, match="VectorConfig is not registered"):
        Perception(SPECS, PerceptionConfig(encoder=VectorConfig()))


def perceive(precision, *, config=None, specs=SPECS, memory="none"):
    """Process a sequence, and return perception, features, the last state, and all gradients."""
    torch.manual_seed(0)
    perception = Perception(specs, config or small_config(memory=memory), precision=precision)
    obs, state = observe(6, 3), perception.memory.initial_state(3)
    starts = torch.zeros(6, 3, dtype=torch.bool)
    starts[3, 1] = True
    features, after = perception(obs, state, starts)
    features.square().sum().backward()
    gradients = {name: p.grad for name, p in perception.named_parameters()}
    return perception, features.detach(), after.detach(), gradients


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_lower_precision_changes_little_and_results_are_float32(encoder, memory):
    # With default sizes: in a small network, the gradient jumps if rounding moves one activation
    # across a kink.
    config = replace(small_config(encoder, memory, 64), encoder=ENCODERS[encoder][0]())
    _, features, after, gradients = perceive(torch.float32, config=config)
    perception, *lower = perceive(torch.bfloat16, config=config)
    for rounded, exact in zip(lower, (features, after), strict=False):
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0.03)
    assert not torch.equal(lower[0], features)
    assert {p.dtype for p in perception.parameters()} == {torch.float32}
    whole = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    for name, gradient in lower[2].items():
        assert gradient.dtype == torch.float32, name
        exact = gradients[name]
        assert (gradient - exact).norm() <= 0.05 * exact.norm() + 0.005 * whole, name


@pytest.mark.parametrize("memory", MEMORIES)
def test_only_images_are_encoded_at_a_lower_precision(memory):
    perception = make(memory=memory, precision=torch.bfloat16)
    dtypes = {}
    for name, module in [*perception.encoders.items(), ("memory", perception.memory)]:

        def remember(_, inputs, outputs, name=name):
            outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
            dtypes[name] = {tensor.dtype for tensor in (*inputs, *outputs)}

        module.register_forward_hook(remember)
    state = perception.memory.initial_state(3)
    perception(observe(6, 3), state, torch.zeros(6, 3, dtype=torch.bool))
    assert dtypes["screen"] == {torch.uint8, torch.bfloat16}
    assert dtypes["variables"] == {torch.float32}
    assert dtypes["memory"] == {torch.float32, torch.bool}


def test_vectors_beside_images_are_encoded_in_float32():
    perception, exact, *_ = perceive(torch.float32)
    _, rounded, *_ = perceive(torch.bfloat16)
    size = perception.num_image_features
    assert not torch.equal(rounded[..., :size], exact[..., :size])
    assert torch.equal(rounded[..., size:], exact[..., size:])


@pytest.mark.parametrize("memory", MEMORIES)
def test_without_images_everything_is_computed_in_float32(memory):
    specs = {"variables": SPECS["variables"]}
    _, features, after, gradients = perceive(torch.float32, specs=specs, memory=memory)
    perception, *lower = perceive(torch.bfloat16, specs=specs, memory=memory)
    assert perception.heavy_modules == []
    assert torch.equal(lower[0], features)
    assert torch.equal(lower[1], after)
    assert all(torch.equal(lower[2][name], gradients[name]) for name in gradients)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_cast_weights_give_the_same_features(encoder, memory):
    perception = make(encoder=encoder, memory=memory, normalize_obs=True, precision=torch.bfloat16)
    perception.observe({name: part.flatten(0, 1) for name, part in observe(6, 3).items()})
    obs, state = observe(6, 3), perception.memory.initial_state(3)
    starts = torch.zeros(6, 3, dtype=torch.bool)
    with torch.no_grad():
        expected, expected_state = perception(obs, state, starts)
        perception.cast_weights()
        features, after = perception(obs, state, starts)
    for module in perception.heavy_modules:
        # Attention computes in float32 what autocast does.
        keeps = any(isinstance(layer, nn.LayerNorm) for layer in module.modules())
        dtype = torch.float32 if keeps else torch.bfloat16
        assert {p.dtype for p in module.parameters()} <= {dtype}
    assert {p.dtype for p in perception.encoders["variables"].parameters()} == {torch.float32}
    # Statistics keep their precision.
    statistics = perception.encoders["screen"].decoder.seen["others"]
    assert statistics.mean.dtype == torch.float64
    torch.testing.assert_close(features, expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(after, expected_state, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_precision_causes_no_warning(precision):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        perceive(precision, memory="lstm")
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_features_can_be_normalised(encoder):
    plain = make(encoder=encoder)
    perception = Perception(SPECS, replace(plain_config(encoder), layer_norm=True))
    perception.load_state_dict(plain.state_dict(), strict=False)
    obs = {name: part.flatten(0, 1) for name, part in observe(6, 3).items()}
    features, first = perception.encode(obs), 0
    for name, each in perception.encoders.items():
        part = features[:, first : first + each.num_features]
        expected = F.layer_norm(plain.encode({name: obs[name]}), (each.num_features,))
        torch.testing.assert_close(part, expected)
        first += each.num_features
