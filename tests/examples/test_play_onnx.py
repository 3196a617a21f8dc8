"""Tests of `examples/play_onnx.py`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

import evaluate
from agents.policy import observation_specs
from deploy.onnx import save_onnx
from envs import EnvConfig, make
from storage.policy_file import About, PolicyFile, save_policy
from tests.agents.synthetic import make_policy

ROOT = Path(__file__).parents[2]
NUM_EPISODES = 5
# Runs a program in which importing PyTorch fails.
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def play(*arguments: object) -> subprocess.CompletedProcess[str]:
    example = str(ROOT / "examples" / "play_onnx.py")
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, example, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def returns(done: subprocess.CompletedProcess[str]) -> list[float]:
    assert done.returncode == 0, done.stderr
    *episodes, mean = done.stdout.replace(",", "").splitlines()
    found = [float(re.fullmatch(r"seed \d+: return (\S+)", line)[1]) for line in episodes]
    assert mean == f"mean of {len(found)} episodes: {sum(found) / len(found):.2f}"
    return found


@pytest.fixture(scope="module")
def basic(tmp_path_factory) -> Path:
    """Export a policy of the zoo, in another working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("onnx"))
        assert evaluate.main(["export", "zoo/basic"]) == 0
        return Path("runs/zoo/basic/policy.onnx").resolve()


def scored(run: str | Path, scores: Path) -> dict[str, list[float]]:
    """Return the returns that `evaluate.py score` finds, with two environments in parallel."""
    options = ["--episodes", str(NUM_EPISODES), "--seed", "40", "--num-envs", "2"]
    assert evaluate.main(["score", str(run), *options, "--json", str(scores)]) == 0
    return json.loads(scores.read_text())["returns"]


@pytest.mark.slow
def test_the_returns_are_those_of_evaluate(basic, tmp_path):
    expected = scored("zoo/basic", tmp_path / "scores.json")
    assert expected["greedy"] != expected["sampled"]
    options = ("--episodes", NUM_EPISODES, "--seed", 40)
    assert returns(play(basic, *options)) == expected["greedy"]
    assert returns(play(basic, *options, "--sample")) == expected["sampled"]


@pytest.mark.slow
def test_so_are_the_returns_with_memory_variables_and_groups_of_choices(tmp_path):
    config = EnvConfig(env="basic", variables=True, actions="groups", height=40, width=40)
    env = make(config)
    specs = observation_specs(env.observation_space, env.metadata)
    policy = make_policy(specs=specs, actions=env.action_space, memory="lstm")
    with torch.no_grad():
        policy.actor.layer.weight.mul_(500.0)  # So that the memory matters.
    file = tmp_path / "policy.safetensors"
    save_policy(file, policy, env=vars(config), about=About())
    assert evaluate.main(["export", str(file)]) == 0
    expected = scored(file, tmp_path / "scores.json")
    options = ("--episodes", NUM_EPISODES, "--seed", 40, "--sample")
    done = play(tmp_path / "policy.onnx", *options)
    assert returns(done) == expected["sampled"]
    assert len(set(expected["sampled"])) > 1


def of_gigabytes() -> bytes:
    """Return an exported policy of a few bytes that asks for 2.4 GB."""
    helper, kinds = onnx.helper, onnx.TensorProto
    shape = helper.make_tensor("s", kinds.INT64, [1], [600_000_000])
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("ConstantOfShape", ["shape"], ["numbers"]),
        helper.make_node("ReduceSum", ["numbers"], ["greedy_actions"], keepdims=1),
    ]
    inputs = [helper.make_tensor_value_info("obs", kinds.UINT8, ["N", 72, 128, 1])]
    outputs = [helper.make_tensor_value_info("greedy_actions", kinds.FLOAT, [1])]
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    about = {"env": {"env": "basic"}, "actions": {"sizes": [8]}}
    model.metadata_props.add(key="doomgrad", value=json.dumps(about))
    return model.SerializeToString()


@pytest.mark.slow
def test_a_wrong_argument_is_reported_in_one_line(basic, tmp_path):
    foreign = tmp_path / "foreign.onnx"
    file = PolicyFile(policy=make_policy(), env={}, about=About())
    save_onnx(foreign, file, env={"env": "tests.envs.toy:Echo-v0"})
    greedy = tmp_path / "greedy.onnx"
    greedy.write_bytes(of_gigabytes())
    for arguments, expected in (
        (["nowhere.onnx"], "error: nowhere.onnx is not a policy that evaluate.py exported"),
        ([ROOT / "README.md"], "is not a policy that evaluate.py exported"),
        ([tmp_path], "there is no such file"),
        ([greedy], "cannot be run: "),
        ([foreign], "importing tests.envs.toy, which a file may not ask for"),
        ([basic, "--episodes", 0], "--episodes must be at least 1"),
        ([basic, "--seed", -1], "--seed at least 0"),
    ):
        done = play(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert expected in done.stderr
