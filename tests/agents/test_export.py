"""Tests of `agents.export`."""

from __future__ import annotations

import itertools
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from agents.checkpoint import About, PolicyFile
from agents.commandline import UsageError
from agents.export import TOLERANCE, differences, save_onnx
from perception import ENCODERS, MEMORIES, ImageSpec, VectorSpec
from tests.agents.synthetic import IMAGE, PALETTE, VECTOR, make_draws, make_obs, make_policy
from tests.agents.toy import ACTION_SPACES

ROOT = Path(__file__).parent.parent.parent
ENV = {"env": "basic", "width": 40}
MIXED = {"screen": IMAGE, "variables": VECTOR}  # Colours, depth and numbers.
STACKED = {"obs": ImageSpec(shape=(36, 40, 2), channels=("palette",) * 2, palette=PALETTE)}
RGB = {"obs": ImageSpec(shape=(37, 41, 3), channels=("red", "green", "blue"))}  # No whole blocks.
# Each encoder and each memory once; the rest of the square takes as long again as this file.
QUICK = {("nature", "lstm"), ("impala", "gru"), ("mlp", "none")}
CASES = [
    *(
        pytest.param(MIXED, *pair, marks=[] if pair in QUICK else pytest.mark.slow)
        for pair in itertools.product(ENCODERS, MEMORIES)
    ),
    (RGB, "nature", "gru"),
    pytest.param(STACKED, "impala", "lstm", marks=pytest.mark.slow),
]


def write(path, policy, **about):
    """Export a policy; give what was found, and a session of the file."""
    file = PolicyFile(policy=policy, env={}, about=About(**about))
    return save_onnx(path, file, env=ENV), onnxruntime.InferenceSession(path)


def run(session, **arrays):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays), strict=True))


def make_raw_obs(*args, **kwargs):
    """Draw observations whose vectors need a normaliser."""
    obs = make_obs(*args, **kwargs)
    return {n: 100 + 7 * part if part.is_floating_point() else part for n, part in obs.items()}


@pytest.mark.parametrize(
    ("specs", "encoder", "memory"), CASES, ids=lambda v: v if isinstance(v, str) else "+".join(v)
)
def test_it_computes_what_the_policy_computes_at_any_batch_size(specs, encoder, memory, tmp_path):
    policy = make_policy(specs=specs, encoder=encoder, memory=memory, normalize_obs=True)
    with torch.no_grad():
        policy.actor.layer.weight.mul_(100.0)  # Decided, as trained policies are.
    policy.observe(make_raw_obs(specs, 50, 4))
    found, session = write(tmp_path / "policy.onnx", policy)
    assert list(tmp_path.iterdir()) == [tmp_path / "policy.onnx"]
    assert max(found.values()) < 1e-5
    assert ("memory_state" in [i.name for i in session.get_inputs()]) == (memory != "none")
    for size in (1, 2, 7):
        obs = make_raw_obs(specs, 5, size, seed=size)
        starts = torch.rand(5, size, generator=torch.Generator().manual_seed(size)) < 0.3
        state = torch.randn_like(policy.initial_state(size))
        carried = state.transpose(0, 1).numpy()
        with torch.no_grad():
            distribution, values, after = policy(obs, state, starts)
        assert distribution.probabilities().flatten(0, 1).std(0).max() > 1e-3
        for step in range(5):
            arrays = {name: part[step].numpy() for name, part in obs.items()}
            if memory != "none":
                arrays |= {"memory_state": carried, "episode_starts": starts[step].numpy()}
            given = run(session, **arrays)
            expected = distribution.probabilities()[step].numpy()
            np.testing.assert_allclose(given["probabilities"], expected, rtol=0, atol=1e-5)
            np.testing.assert_allclose(given["values"], values[step].numpy(), rtol=0, atol=1e-5)
            np.testing.assert_array_equal(given["greedy_actions"], distribution.mode()[step])
            carried = given.get("next_memory_state", carried)
        np.testing.assert_allclose(carried, after.transpose(0, 1).numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_a_line_of_numpy_plays_greedily_or_draws(actions, tmp_path):
    space = ACTION_SPACES[actions]
    policy = make_policy(actions=space)
    with torch.no_grad():
        policy.actor.layer.bias.copy_(torch.linspace(-0.5, 0.5, len(policy.actor.layer.bias)))
    _, session = write(tmp_path / "policy.onnx", policy)
    obs, draws = make_obs(policy.specs, 300), make_draws(space, 300)
    given = run(session, obs=obs["obs"].numpy())
    state, starts = policy.initial_state(300), torch.ones(300, dtype=torch.bool)
    greedy = policy.act(obs, state, starts, None).actions.numpy()
    np.testing.assert_allclose(given["greedy_actions"], greedy, rtol=0, atol=1e-6)
    assert given["greedy_actions"].dtype == greedy.dtype
    drawn, u = policy.act(obs, state, starts, draws).actions.numpy(), draws.numpy()
    if actions == "Box":
        noise = torch.special.ndtri(draws.double() + 2.0**-25).numpy()
        ours = given["mean"] + np.exp(given["log_std"]) * noise
    elif actions == "MultiBinary":
        ours = u < given["probabilities"]
    else:
        sizes = json.loads(session.get_modelmeta().custom_metadata_map["doomgrad"])["actions"]
        groups = np.split(given["probabilities"], np.cumsum(sizes["sizes"])[:-1], axis=-1)
        pairs = zip(groups, u.T, strict=True)
        ours = [(p.cumsum(-1)[:, :-1] <= draw[:, None]).sum(-1) for p, draw in pairs]
        ours = np.stack(ours, -1).reshape(drawn.shape)
    np.testing.assert_allclose(ours, drawn, rtol=0, atol=1e-5)


def test_the_file_says_what_it_is(tmp_path):
    policy = make_policy(specs=MIXED, memory="lstm", actions=ACTION_SPACES["MultiDiscrete"])
    found, session = write(tmp_path / "policy.onnx", policy, agent="ppo", value_unit=2.0)
    about = json.loads(session.get_modelmeta().custom_metadata_map["doomgrad"])
    assert about.keys() == {"format", "env", "about", "actions", "inputs", "outputs", "parity"}
    assert (about["format"], about["env"], about["parity"]) == (1, ENV, found)
    assert about["about"] == asdict(About(agent="ppo", value_unit=2.0))
    assert about["actions"] == {"kind": "multi_discrete", "sizes": [2, 3]}
    types = {"uint8": "uint8", "bool": "bool", "float32": "float", "int64": "int64"}
    for parts, told in (
        (session.get_inputs(), about["inputs"]),
        (session.get_outputs(), about["outputs"]),
    ):
        assert [part.name for part in parts] == list(told)
        for part in parts:
            shape = str(tuple(part.shape)).replace("'", "")
            kind = told[part.name].removeprefix(f"{shape} ").split(",")[0].split(" ")[0]
            assert part.type == f"tensor({types[kind]})"
    assert "palette, depth" in about["inputs"]["screen"]
    assert "in groups of 2, 3" in about["outputs"]["probabilities"]


def test_it_computes_in_float32_whatever_was_trained_with(tmp_path):
    policy = make_policy(specs=RGB)
    policy.perception.precision = torch.bfloat16
    found, session = write(tmp_path / "policy.onnx", policy)
    assert max(found.values()) < 1e-6
    assert differences(policy, session)["values"] > 1e-4
    assert policy.perception.precision == torch.bfloat16


def test_another_policy_is_found_out(tmp_path):
    _, session = write(tmp_path / "policy.onnx", make_policy(memory="gru"))
    assert max(differences(make_policy(memory="gru"), session).values()) <= TOLERANCE
    found = differences(make_policy(memory="gru", seed=1), session)
    assert min(found["probabilities"], found["values"], found["next_memory_state"]) > TOLERANCE
    assert found["greedy_actions"] > 0


def test_what_is_not_finite_is_refused_and_the_file_before_it_kept(tmp_path):
    policy = make_policy()
    with torch.no_grad():
        policy.critic.bias[:] = float("nan")
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"before")
    with pytest.raises(UsageError, match="values of ONNX Runtime and PyTorch differ by nan"):
        write(path, policy)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["probabilities", "memory_state"])
def test_names_that_mean_something_else_are_refused(name, tmp_path):
    policy = make_policy(specs={name: VectorSpec(size=3)})
    with pytest.raises(UsageError, match=f"have a part called {name}"):
        write(tmp_path / "policy.onnx", policy)


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_in_one_line(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    file = PolicyFile(policy=make_policy(), env={}, about=About())
    with pytest.raises(UsageError, match=rf'{package} is not installed; pip install -e ".\[export'):
        save_onnx(tmp_path / "policy.onnx", file, env={})


def test_the_same_policy_is_the_same_file_and_names_no_folder_of_this_machine(tmp_path):
    policy = make_policy(memory="gru")
    first, second = tmp_path / "1.onnx", tmp_path / "2.onnx"
    for path in (first, second):
        write(path, policy)
    assert first.read_bytes() == second.read_bytes()
    for trace in (str(ROOT), "export.py", "forward"):
        assert trace.encode() not in first.read_bytes()


def test_exporting_says_nothing_of_its_own_and_changes_no_policy(tmp_path, capfd, recwarn, caplog):
    policy = make_policy(specs=MIXED, memory="lstm", encoder="nature").train()
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    block = policy.perception.encoders["screen"][0].block
    write(tmp_path / "policy.onnx", policy)
    assert "".join(capfd.readouterr()) == ""
    assert not recwarn.list
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert policy.training
    assert policy.perception.encoders["screen"][0].block == block > 1
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())
