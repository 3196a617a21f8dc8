"""Tests of `storage.upgrade`: files of older versions are read, scored and resumed.

tests/data/format3 was written by the version of commit e3a0fd8; expected.json and *-resumed are
what that version itself makes of the files.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import evaluate
import train
from envs.registry import folder_name
from evaluation.entries import ZOO
from storage.files import FileError
from storage.policy_file import load_policy
from storage.run_folder import RunFolder, find_policy
from storage.upgrade import upgraded_config, upgraded_perception, upgraded_tensor_name
from tests.agents.files import rewrite
from tests.agents.synthetic import make_obs, weights
from tests.storage.policies import refused

DATA = Path(__file__).parents[1] / "data" / "format3"
EXPECTED = json.loads((DATA / "expected.json").read_text())
POLICIES = {
    "cartpole": DATA / "cartpole" / "policy.safetensors",
    "doom": DATA / "doom" / "policy.safetensors",
    "impala": DATA / "impala.safetensors",
    "mlp": DATA / "mlp.safetensors",
}
# The commands that began the runs.
COMMANDS = {
    "cartpole": """CartPole-v1 --num-envs 2 --num-workers 1 --rollout-length 32 --hidden-sizes 8
        --memory lstm --memory-size 4 --minibatch-size 128 --normalize-obs --normalize-returns
        --no-record
        --eval-episodes 2 --eval-every 256 --total-env-steps 1024""",
    "doom": """basic --num-envs 2 --num-workers 1 --num-groups 2 --rollout-length 16 --height 40
        --width 40 --conv-channels 2 2 2 --features 4 --hidden-sizes 4 --memory gru --memory-size 4
        --variables --normalize-obs --precision float32 --no-record --eval-episodes 1
        --eval-every 64 --minibatch-size 16 --total-env-steps 256""",
}


@pytest.mark.parametrize("name", POLICIES)
def test_an_old_policy_computes_what_it_computed(name):
    policy = load_policy(POLICIES[name]).policy
    starts = torch.tensor([[True] * 2, [False] * 2, [False] * 2])
    with torch.no_grad():
        output = policy(make_obs(policy.specs, 3, 2), policy.initial_state(2), starts)
    found = {
        "values": output.values,
        "probabilities": output.distribution.probabilities(),
        "memory_state": output.memory_state,
    }
    for key, values in found.items():
        expected = torch.tensor(EXPECTED[name][key]).reshape(values.shape)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["cartpole", "doom", *(pytest.param(n, marks=pytest.mark.slow) for n in ("impala", "mlp"))],
)
def test_an_old_policy_is_scored_as_it_was(name, tmp_path):
    result = tmp_path / "result.json"
    options = ["--episodes", "3", "--num-envs", "2", "--json", str(result)]
    assert evaluate.main(["score", str(POLICIES[name]), *options]) == 0
    returns = json.loads(result.read_text())["returns"]
    assert {mode: returns[mode] for mode in EXPECTED[name]["returns"]} == EXPECTED[name]["returns"]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_old_run_is_resumed_as_it_would_have_been(name, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(DATA / name, folder)
    assert train.main([*COMMANDS[name].split(), "--run-dir", str(folder)]) == 0
    said = capsys.readouterr().err
    assert "resuming at" in said
    assert "could not be restored" not in said
    # Equal bit for bit on the kind of machine that wrote them.
    resumed = load_policy(folder / "policy.safetensors")
    expected = load_policy(DATA / f"{name}-resumed.safetensors")
    torch.testing.assert_close(
        weights(resumed.policy), weights(expected.policy), rtol=1e-5, atol=1e-6
    )
    assert resumed.about.env_steps == expected.about.env_steps
    # What is written is of the present format, and can be resumed again.
    config = RunFolder(folder).read_record()["config"]
    assert config == RunFolder(folder).read_config()
    assert config["agent"]["name"] == "ppo"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gamma", "0.5"], "agent.gamma 0.98, not 0.5"),
        (["--memory", "gru"], "perception.memory.name lstm, not gru"),
        (["--agent", "a2c"], "agent.name ppo, not a2c"),
        (["--hidden-sizes", "9"], "perception.vectors.hidden_sizes [8], not [9]"),
    ],
    ids=str,
)
def test_an_old_run_is_resumed_with_its_own_configuration_only(flags, words, tmp_path):
    shutil.copytree(DATA / "cartpole", tmp_path / "run")
    arguments = [*COMMANDS["cartpole"].split(), *flags, "--run-dir", str(tmp_path / "run")]
    with pytest.raises(FileError) as refusal:
        train.main(arguments)
    assert words in str(refusal.value)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ZOO.glob("*/*.safetensors")))
def test_every_policy_of_the_zoo_is_read(name):
    file, _ = find_policy(ZOO / name)
    assert folder_name(file.env["env"]) == name
    assert all(weight.isfinite().all() for weight in file.policy.parameters())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("perception.encoders.obs.0.palette", "perception.encoders.obs.decoder.palette"),
        (
            "perception.encoders.obs.1.layers.0.weight",
            "perception.encoders.obs.encoder.layers.0.weight",
        ),
        (
            "perception.encoders.variables.layers.0.bias",
            "perception.encoders.variables.encoder.layers.0.bias",
        ),
        ("perception.normalizers.obs.mean", "perception.encoders.obs.normalizer.mean"),
        ("perception.memory.layer.weight_ih_l0", "perception.memory.layer.weight_ih_l0"),
        ("critic.weight", "critic.weight"),
    ],
)
def test_tensors_are_found_under_their_present_names(old, new):
    assert upgraded_tensor_name(old) == new
    assert upgraded_tensor_name(new) == new


LAYERS = {
    "hidden_sizes": [8],
    "conv_channels": [2, 3, 4],
    "conv_strides": [4, 2, 1],
    "impala_channels": [5, 6],
    "features": 7,
}


def test_encoders_get_the_layer_sizes_that_they_used():
    old = {"memory": "none", "memory_size": 9, "layers": LAYERS}
    nature = {"conv_channels": [2, 3, 4], "conv_strides": [4, 2, 1], "features": 7}
    impala = {"impala_channels": [5, 6], "features": 7}
    for name, fields in (("nature", nature), ("impala", impala), ("mlp", {"mlp_sizes": [8]})):
        assert upgraded_perception({**old, "encoder": name}) == {
            "encoder": {"name": name, **fields},
            "memory": {"name": "none"},
            "vectors": {"hidden_sizes": [8]},
        }


def test_a_present_configuration_is_left_as_it_is():
    config = {"env": {"env": "basic"}, "agent": {"name": "ppo"}, "objectives": {}}
    assert upgraded_config(config) == config


def test_a_policy_of_a_format_before_is_refused(tmp_path):
    path = tmp_path / "policy.safetensors"
    shutil.copy(POLICIES["cartpole"], path)
    rewrite(path, lambda description: description.update(format=2))
    refused(path, "is of format 2; this program reads 3 to 4")
