"""Tests of `examples/play_onnx.py`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import evaluate
from agents.checkpoint import About, PolicyFile, save_policy
from agents.export import save_onnx
from agents.policy import observation_specs
from envs import EnvConfig, make
from tests.agents.synthetic import make_policy

ROOT = Path(__file__).parent.parent.parent
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
    """Export a policy of the zoo, from elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("onnx"))
        assert evaluate.main(["export", "zoo/basic"]) == 0
        return Path("policy.onnx").resolve()


def scored(run: str | Path, scores: Path) -> dict[str, list[float]]:
    """Let `evaluate.py score` play five episodes, two at a time."""
    options = ["--episodes", "5", "--seed", "40", "--num-envs", "2", "--json", str(scores)]
    assert evaluate.main(["score", str(run), *options]) == 0
    return json.loads(scores.read_text())["returns"]


def test_it_scores_what_evaluate_scores_episode_by_episode(basic, tmp_path):
    expected = scored("zoo/basic", tmp_path / "scores.json")
    assert expected["greedy"] != expected["sampled"]
    assert returns(play(basic, "--episodes", 5, "--seed", 40)) == expected["greedy"]
    assert returns(play(basic, "--episodes", 5, "--seed", 40, "--sample")) == expected["sampled"]


def test_so_it_does_with_memory_variables_and_groups_of_choices(tmp_path):
    config = EnvConfig(env="basic", variables=True, actions="groups", height=40, width=40)
    env = make(config)
    specs = observation_specs(env.observation_space, env.metadata)
    policy = make_policy(specs=specs, actions=env.action_space, memory="lstm")
    with torch.no_grad():
        policy.actor.layer.weight.mul_(500.0)  # What it remembers matters.
    file = tmp_path / "policy.safetensors"
    save_policy(file, policy, env=vars(config), about=About())
    assert evaluate.main(["export", str(file)]) == 0
    expected = scored(file, tmp_path / "scores.json")
    done = play(tmp_path / "policy.onnx", "--episodes", 5, "--seed", 40, "--sample")
    assert returns(done) == expected["sampled"]
    assert len(set(expected["sampled"])) > 2


def test_bad_input_gets_one_line(basic, tmp_path):
    foreign = tmp_path / "foreign.onnx"
    file = PolicyFile(policy=make_policy(), env={}, about=About())
    save_onnx(foreign, file, env={"env": "tests.envs.toy:Echo-v0"})
    for arguments, expected in (
        (["nowhere.onnx"], "error: nowhere.onnx is no policy that evaluate.py exported"),
        ([ROOT / "README.md"], "is no policy that evaluate.py exported"),
        ([foreign], "importing tests.envs.toy, which a file may not ask for"),
        ([basic, "--episodes", 0], "--episodes is at least 1"),
        ([basic, "--seed", -1], "--seed at least 0"),
    ):
        done = play(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert expected in done.stderr
