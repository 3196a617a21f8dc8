"""Tests of `deploy.int8`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gymnasium import spaces
from onnx import numpy_helper

from agents import Policy
from deploy import int8
from deploy.errors import DeployError
from deploy.int8 import changed_decisions, changes, quantize, save_int8
from deploy.onnx import draw_inputs, translate
from perception import ENCODERS, MEMORIES, PerceptionConfig
from perception.encoders import VectorConfig
from storage.onnx_file import load_onnx
from storage.policy_file import About, PolicyFile
from tests.agents.synthetic import IMAGE, VECTOR, make_policy

SPECS = {"screen": IMAGE, "variables": VECTOR}
ENV = {"env": "basic"}


def batches_of(policy, number):
    """Return batches of random inputs, also of the memory's state."""
    rng = np.random.default_rng(0)
    batches = [draw_inputs(policy, 16, rng) for _ in range(number)]
    for batch in batches if policy.is_recurrent else []:
        batch["memory_state"] = rng.uniform(-1, 1, batch["memory_state"].shape).astype(np.float32)
    return batches


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A policy, its translation, and the file of the quantised one with what was found."""
    policy = make_policy(specs=SPECS, encoder="nature", memory="gru")
    file = PolicyFile(policy=policy.eval(), env={}, about=About(agent="ppo"))
    path = tmp_path_factory.mktemp("int8") / "policy.onnx"
    found = save_int8(path, file, batches_of(policy, 8), env=ENV)
    return policy, path, found


def tensors(model):
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def test_it_acts_almost_as_in_float32(quantized):
    policy, path, found = quantized
    assert 0 < found["probabilities"] < 0.01
    assert found["values"] < 0.05
    assert found["next_memory_state"] < 0.02
    file = load_onnx(path)
    assert file.policy.specs == policy.specs
    assert '"int8"' in file.network


def test_scales_are_those_of_each_output_channel(quantized):
    """NumPy's largest magnitude of each channel is 127 steps, and weights are rounded to steps."""
    onnx = pytest.importorskip("onnx")
    policy, path, _ = quantized
    kept = tensors(onnx.load(path))
    checked = 0
    for name, parameter in policy.named_parameters():
        stem = f"_policy.{name}"
        if f"{stem}_quantized" not in kept:
            continue
        weight = parameter.detach().numpy()
        if not name.endswith("weight"):
            continue
        scales = np.abs(weight).reshape(len(weight), -1).max(1) / 127
        np.testing.assert_allclose(kept[f"{stem}_scale"], scales, rtol=1e-5)
        steps = np.round(weight / scales.reshape(-1, *[1] * (weight.ndim - 1)))
        assert kept[f"{stem}_quantized"].dtype == np.int8
        assert np.abs(kept[f"{stem}_quantized"] - steps).max() <= 1  # Of rounding at one half.
        assert not kept[f"{stem}_zero_point"].any()
        checked += 1
    assert checked >= 4  # Three convolutions and a linear layer.
    names = [name for name in kept if name.endswith("_quantized")]
    assert not [name for name in names if "actor" in name or "critic" in name]


def test_what_changes_too_much_is_not_written(tmp_path, monkeypatch):
    policy = Policy({"obs": VECTOR}, spaces.Discrete(24), PerceptionConfig())
    found = {"probabilities": 0.01, "values": 0.0}  # Of each of 24 choices.
    monkeypatch.setattr(int8, "translate", lambda policy: None)
    monkeypatch.setattr(int8, "quantize", lambda *arguments: None)
    monkeypatch.setattr(int8, "changes", lambda *models: found)
    file = PolicyFile(policy=policy, env={}, about=About())
    with pytest.raises(
        DeployError, match=r"8 bits change 12% of decisions; at most 10% is .* more ep"
    ):
        save_int8(tmp_path / "policy.onnx", file, [], env=ENV)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("space", "decisions"),
    [
        (spaces.Discrete(24), [slice(0, 24)]),
        (spaces.MultiDiscrete([3, 9, 2]), [slice(0, 3), slice(3, 12), slice(12, 14)]),
        (spaces.MultiBinary(4), None),
    ],
)
def test_changed_decisions_are_the_total_variation_distance(space, decisions):
    rng = np.random.default_rng(0)
    policy = Policy({"obs": VECTOR}, space, PerceptionConfig())
    if decisions is None:
        ours, theirs = rng.random((2, 50, 4))
        distances = [np.abs(ours - theirs)]
    else:
        draws = [rng.dirichlet(np.ones(part.stop - part.start), (2, 50)) for part in decisions]
        ours, theirs = np.concatenate(draws, axis=-1)
        # The largest difference of the probability of any set of choices.
        distances = [np.maximum(pair[0] - pair[1], 0).sum(-1) for pair in draws]
    change = float(np.abs(ours - theirs).mean())
    assert changed_decisions(change, policy) == pytest.approx(float(np.mean(distances)))


def test_a_policy_without_layers_is_refused():
    config = PerceptionConfig(vectors=VectorConfig(hidden_sizes=()))
    policy = Policy({"obs": VECTOR}, make_policy().action_space, config).eval()
    with pytest.raises(DeployError, match="no convolution or linear layer before its heads"):
        quantize(translate(policy), policy, batches_of(policy, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "memory"), list(itertools.product(ENCODERS, MEMORIES)))
def test_every_network_is_quantised(encoder, memory):
    policy = make_policy(specs=SPECS, encoder=encoder, memory=memory).eval()
    model, batches = translate(policy), batches_of(policy, 6)
    found = changes(model, quantize(model, policy, batches[::2]), batches[1::2])
    assert 0 < found["probabilities"] < 0.02
    assert found["values"] < 0.1
