"""Tests of `deploy.onnx`."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from agents.extras import MissingExtraError
from deploy.errors import DeployError
from deploy.onnx import TOLERANCE, differences, save_onnx
from perception import ENCODERS, MEMORIES, ImageSpec, VectorSpec
from storage.onnx_file import load_onnx
from storage.policy_file import About, PolicyFile, parse_specs
from tests.agents.synthetic import IMAGE, PALETTE, SENSES, VECTOR, make_draws, make_obs, make_policy
from tests.agents.toy import ACTION_SPACES

ROOT = Path(__file__).parents[2]
ENV = {"env": "basic", "width": 40}
# Frames of 37x41 pixels cannot be decoded in blocks.
RGB = {"obs": ImageSpec(shape=(37, 41, 3), channels=("red", "green", "blue"))}
MIXED = {"screen": IMAGE, "variables": VECTOR, **SENSES}
STACKED = {"obs": ImageSpec(shape=(36, 40, 2), channels=("palette",) * 2, palette=PALETTE)}
# Every encoder and every memory once; all other pairs are among the slow tests.
NUM_QUICK = max(len(ENCODERS), len(MEMORIES))
QUICK = list(
    itertools.islice(
        zip(
            itertools.chain([MIXED], itertools.cycle([RGB, STACKED])),
            itertools.cycle(ENCODERS),
            itertools.cycle(MEMORIES),
        ),
        NUM_QUICK,
    )
)
SLOW = [
    pytest.param(MIXED, encoder, memory, marks=pytest.mark.slow)
    for encoder, memory in itertools.product(ENCODERS, MEMORIES)
    if (MIXED, encoder, memory) not in QUICK
]


def write(path, policy, **about):
    """Export a policy; return the differences, and a session of the file."""
    file = PolicyFile(policy=policy, env={}, about=About(**about))
    return save_onnx(path, file, env=ENV), onnxruntime.InferenceSession(path)


def run(session, **arrays):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays), strict=True))


def make_raw_obs(*args, **kwargs):
    """Return random observations whose vectors are far from mean 0 and variance 1."""
    obs = make_obs(*args, **kwargs)
    return {n: 100 + 7 * part if part.is_floating_point() else part for n, part in obs.items()}


@pytest.mark.parametrize(
    ("specs", "encoder", "memory"),
    [*QUICK, *SLOW],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_the_file_computes_what_the_policy_computes(specs, encoder, memory, tmp_path):
    policy = make_policy(specs=specs, encoder=encoder, memory=memory, normalize_obs=True)
    with torch.no_grad():
        policy.actor.layer.weight.mul_(100.0)  # As decided as a trained policy.
    policy.observe(make_raw_obs(specs, 50, 4))
    found, session = write(tmp_path / "policy.onnx", policy)
    assert list(tmp_path.iterdir()) == [tmp_path / "policy.onnx"]
    assert max(found.values()) < 1e-5
    assert ("memory_state" in [i.name for i in session.get_inputs()]) == (memory != "none")
    played = load_onnx(tmp_path / "policy.onnx").policy
    assert played.specs == policy.specs
    for size in (1, 2, 7):
        obs = make_raw_obs(specs, 5, size, seed=size)
        starts = torch.rand(5, size, generator=torch.Generator().manual_seed(size)) < 0.3
        state = torch.randn_like(policy.initial_state(size))
        carried = state.transpose(0, 1).numpy()
        with torch.no_grad():
            distribution, values, _, after = policy(obs, state, starts)
        assert distribution.probabilities().flatten(0, 1).std(0).max() > 1e-3
        for step in range(5):
            arrays = {name: part[step].numpy() for name, part in obs.items()}
            if memory != "none":
                arrays |= {"memory_state": carried, "episode_starts": starts[step].numpy()}
            computed = run(session, **arrays)
            expected = distribution.probabilities()[step].numpy()
            np.testing.assert_allclose(computed["probabilities"], expected, rtol=0, atol=1e-5)
            np.testing.assert_allclose(computed["values"], values[step].numpy(), rtol=0, atol=1e-5)
            np.testing.assert_array_equal(computed["greedy_actions"], distribution.mode()[step])
            decision = played.act(
                {name: part[step] for name, part in obs.items()},
                torch.from_numpy(carried).transpose(0, 1),
                starts[step],
                None,
            )
            assert torch.equal(decision.actions, distribution.mode()[step])
            carried = computed.get("next_memory_state", carried)
            np.testing.assert_array_equal(decision.memory_state.transpose(0, 1), carried)
        np.testing.assert_allclose(carried, after.transpose(0, 1).numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_numpy_chooses_the_same_actions_from_the_outputs(actions, tmp_path):
    space = ACTION_SPACES[actions]
    policy = make_policy(actions=space)
    with torch.no_grad():
        policy.actor.layer.bias.copy_(torch.linspace(-0.5, 0.5, len(policy.actor.layer.bias)))
    _, session = write(tmp_path / "policy.onnx", policy)
    obs, draws = make_obs(policy.specs, 300), make_draws(space, 300)
    computed = run(session, obs=obs["obs"].numpy())
    state, starts = policy.initial_state(300), torch.ones(300, dtype=torch.bool)
    greedy = policy.act(obs, state, starts, None).actions.numpy()
    np.testing.assert_allclose(computed["greedy_actions"], greedy, rtol=0, atol=1e-6)
    assert computed["greedy_actions"].dtype == greedy.dtype
    drawn, u = policy.act(obs, state, starts, draws).actions.numpy(), draws.numpy()
    if actions == "Box":
        noise = torch.special.ndtri(draws.double() + 2.0**-25).numpy()
        chosen = computed["mean"] + np.exp(computed["log_std"]) * noise
    elif actions == "MultiBinary":
        chosen = u < computed["probabilities"]
    else:
        sizes = json.loads(session.get_modelmeta().custom_metadata_map["doomgrad"])["actions"]
        groups = np.split(computed["probabilities"], np.cumsum(sizes["sizes"])[:-1], axis=-1)
        pairs = zip(groups, u.T, strict=True)
        chosen = [(p.cumsum(-1)[:, :-1] <= draw[:, None]).sum(-1) for p, draw in pairs]
        chosen = np.stack(chosen, -1).reshape(drawn.shape)
    np.testing.assert_allclose(chosen, drawn, rtol=0, atol=1e-5)
    played = load_onnx(tmp_path / "policy.onnx").policy
    for wanted in (None, draws):
        mine, true = (each.act(obs, state, starts, wanted) for each in (played, policy))
        for name, one, other in zip(mine._fields, mine, true, strict=True):
            assert one.dtype == other.dtype, name
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


def test_the_metadata_describe_the_file(tmp_path):
    actions = ACTION_SPACES["MultiDiscrete"]
    specs = {"screen": IMAGE, "notifications": SENSES["notifications"]}
    policy = make_policy(specs=specs, encoder="mlp", memory="gru", actions=actions)
    found, session = write(tmp_path / "policy.onnx", policy, agent="ppo", value_unit=2.0)
    about = json.loads(session.get_modelmeta().custom_metadata_map["doomgrad"])
    assert list(about) == [
        "format",
        "env",
        "about",
        "perception",
        "weights",
        "specs",
        "actions",
        "inputs",
        "outputs",
        "parity",
    ]
    assert (about["format"], about["env"], about["parity"]) == (2, ENV, found)
    assert (about["weights"], about["perception"]) == (
        "float32",
        json.loads(json.dumps(policy.config.as_dict())),
    )
    assert parse_specs(about["specs"]) == policy.specs
    assert about["about"] == asdict(About(agent="ppo", value_unit=2.0))
    assert about["actions"] == {"kind": "multi_discrete", "sizes": [2, 3]}
    types = {n: n for n in ("uint8", "bool", "int32", "int64")} | {"float32": "float"}
    for parts, described in (
        (session.get_inputs(), about["inputs"]),
        (session.get_outputs(), about["outputs"]),
    ):
        assert [part.name for part in parts] == list(described)
        for part in parts:
            shape = str(tuple(part.shape)).replace("'", "")
            kind = described[part.name].removeprefix(f"{shape} ").split(",")[0].split(" ")[0]
            assert part.type == f"tensor({types[kind]})"
    assert "palette, depth" in about["inputs"]["screen"]
    assert "in groups of 2, 3" in about["outputs"]["probabilities"]


def test_exporting_computes_in_float32_prints_nothing_and_does_not_change_the_policy(
    tmp_path, capfd, recwarn, caplog
):
    policy = make_policy(specs={"screen": IMAGE}, precision=torch.bfloat16).train()
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    decoder = policy.perception.encoders["screen"].decoder
    block = decoder.block
    found, session = write(tmp_path / "policy.onnx", policy)
    assert "".join(capfd.readouterr()) == ""
    assert not recwarn.list
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert policy.training
    assert policy.perception.precision == torch.bfloat16
    assert decoder.block == block > 1
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())
    assert max(found.values()) < 1e-6
    assert differences(policy, session)["values"] > 1e-4


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An exported policy with memory: the policy, the file and a session of it."""
    policy, path = make_policy(memory="gru"), tmp_path_factory.mktemp("exported") / "policy.onnx"
    _, session = write(path, policy)
    return policy, path, session


def test_the_check_finds_the_differences_to_another_policy(exported):
    policy, _, session = exported
    assert max(differences(policy, session).values()) <= TOLERANCE
    found = differences(make_policy(memory="gru", seed=1), session)
    assert min(found["probabilities"], found["values"], found["next_memory_state"]) > TOLERANCE
    assert found["greedy_actions"] > 0


def test_the_same_policy_makes_the_same_file_without_paths_of_this_machine(exported, tmp_path):
    policy, path, _ = exported
    write(tmp_path / "again.onnx", policy)
    content = path.read_bytes()
    assert (tmp_path / "again.onnx").read_bytes() == content
    for trace in (str(ROOT), "onnx.py", "forward"):
        assert trace.encode() not in content


def test_a_policy_that_is_not_finite_is_refused_and_an_older_file_is_kept(
    exported, tmp_path, monkeypatch
):
    policy, exported_path, _ = exported
    monkeypatch.setattr("deploy.onnx.translate", lambda _: onnx.load(exported_path))
    policy = copy.deepcopy(policy)
    with torch.no_grad():
        policy.critic.bias[:] = float("nan")
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"before")
    with pytest.raises(DeployError, match="values of ONNX Runtime and PyTorch differ by nan"):
        write(path, policy)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["probabilities", "memory_state"])
def test_a_part_with_the_name_of_another_input_or_output_is_refused(name, tmp_path):
    policy = make_policy(specs={name: VectorSpec(size=3)})
    with pytest.raises(DeployError, match=f"have a part called {name}, which is the name of"):
        write(tmp_path / "policy.onnx", policy)


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_in_one_line(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    file = PolicyFile(policy=make_policy(), env={}, about=About())
    message = rf'{package} is not installed; pip install -e ".\[export'
    with pytest.raises(MissingExtraError, match=message):
        save_onnx(tmp_path / "policy.onnx", file, env={})
