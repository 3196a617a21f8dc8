"""Tests of `storage.onnx_file`; those of `deploy.onnx` also compare it with PyTorch."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from deploy.onnx import save_onnx
from envs import EnvConfig
from evaluation.entries import find_entries
from storage.onnx_file import METADATA_KEY, load_onnx
from storage.policy_file import About, PolicyFile
from storage.run_folder import find_player, find_policy
from tests.evaluation.policies import by_name, cartpole_policy, compare_runs, save_run
from tests.storage.policies import refused

ENV = asdict(EnvConfig(env="CartPole-v1"))


def export(path, policy, **about):
    save_onnx(path, PolicyFile(policy=policy, env={}, about=About(**about)), env=ENV)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An ONNX file of a policy with memory."""
    path = tmp_path_factory.mktemp("exported") / "policy.onnx"
    return export(path, cartpole_policy(0.5, "gru"), agent="ppo", gamma=0.9, value_unit=2.0)


def test_it_is_an_entry_with_the_same_returns_as_the_policy(exported, tmp_path):
    run = save_run(tmp_path / "run", 0.5, memory="gru", gamma=0.9, value_unit=2.0)
    results = by_name(compare_runs(run, str(exported), episodes=6))
    for mode in ("greedy", "sampled"):
        ours, theirs = (results[f"{name} ({mode})"].returns[0] for name in (exported, run))
        np.testing.assert_array_equal(ours, theirs)
        assert len(set(ours)) > 1
    file, folder = find_player(exported)
    assert file.about == About(agent="ppo", gamma=0.9, value_unit=2.0)
    assert folder.path == exported.parent


def test_it_cannot_be_changed(exported):
    refused(exported, "an ONNX file, which can be played but not changed", load=find_policy)


def rewritten(exported, path, change):
    """Write a changed copy of a file.

    Args:
        exported: the file.
        path: the copy.
        change: changes the `onnx.ModelProto`.
    """
    model = onnx.load(exported)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def describe(**changes):
    """Return a function that changes the description in the metadata of a model."""

    def change(model):
        (entry,) = (e for e in model.metadata_props if e.key == METADATA_KEY)
        entry.value = json.dumps({**json.loads(entry.value), **changes})

    return change


def test_files_in_folders_of_seeds_are_one_entry(exported, tmp_path):
    for seed in (0, 1):
        about = {**asdict(About(agent="ppo")), "seed": seed}
        (tmp_path / f"ppo-seed{seed}").mkdir()
        rewritten(exported, tmp_path / f"ppo-seed{seed}" / "policy.onnx", describe(about=about))
    (entry,) = find_entries([f"{tmp_path}/*/*"], trust=False)
    assert entry.name == f"{tmp_path}/ppo/policy.onnx"
    assert [contestant.file.about.seed for contestant in entry.contestants] == [0, 1]


def refer_outside(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")


def rename_input(model):
    model.graph.input[0].name = "other"


def forget(model):
    del model.metadata_props[:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (refer_outside, "it refers to other files"),
        (forget, "is not a policy that evaluate.py exported"),
        (rename_input, "is not a policy that evaluate.py exported"),
        (describe(format=1), "it is of format 1; this program reads 2: export the policy again"),
        (describe(specs={"obs": {"size": 5}}), "its input obs is"),
        (describe(specs={"obs": {"size": 4}, "more": {"size": 4}}), "its inputs are obs"),
        (describe(actions={"kind": "box", "sizes": [2]}), "it has no output"),
        (describe(about={"gamma": 7.0}), "out of range"),
        (describe(env=3), "is not a policy"),
        (describe(specs=[]), "is not a policy"),
    ],
)
def test_what_is_not_an_exported_policy_is_refused_in_one_line(change, reason, exported, tmp_path):
    path = rewritten(exported, tmp_path / "policy.onnx", change)
    refused(path, reason, load=load_onnx)


@pytest.mark.parametrize("content", [b"", b"\x08\x07", b"PK\x03\x04", bytes(4096)])
def test_what_is_no_onnx_file_is_refused(content, tmp_path):
    path = tmp_path / "policy.onnx"
    path.write_bytes(content)
    refused(path, "is not a policy that evaluate.py exported", load=load_onnx)


def test_outputs_of_another_shape_are_refused_when_they_are_computed(exported, tmp_path):
    # The description says three choices, and the network computes two.
    change = describe(actions={"kind": "discrete", "sizes": [3]})
    path = rewritten(exported, tmp_path / "policy.onnx", change)
    refused(path, "probabilities is (1, 2)", "not (1, 3) float32", load=play)


def fill_memory(model):
    """Compute values from 16 TiB of zeros."""
    graph = model.graph
    (node,) = (node for node in graph.node if "values" in node.output)
    node.output[0] = "before"
    sizes = numpy_helper.from_array(np.array([2**21, 2**21], np.int64), "sizes")
    zero = numpy_helper.from_array(np.zeros((1, 1), np.float32), "zero")
    graph.initializer.extend([sizes, zero])
    graph.node.append(helper.make_node("Expand", ["zero", "sizes"], ["zeros"]))
    graph.node.append(helper.make_node("ReduceMax", ["zeros"], ["largest"], keepdims=0))
    graph.node.append(helper.make_node("Add", ["before", "largest"], ["values"]))


def play(path):
    """Choose an action with a file, and return the decision."""
    policy = load_onnx(path).policy
    starts = torch.ones(1, dtype=torch.bool)
    return policy.act({"obs": torch.zeros(1, 4)}, policy.initial_state(1), starts, None)


def test_a_small_file_cannot_fill_the_memory(exported, tmp_path):
    assert play(exported).values.shape == (1,)
    path = rewritten(exported, tmp_path / "policy.onnx", fill_memory)
    refused(path, load=play)
