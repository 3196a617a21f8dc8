"""Tests of `commands.explain`, with a small policy that has learned nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import pytest

import evaluate
from agents import observation_specs
from envs import EnvConfig, make
from storage.policy_file import About, save_policy
from tests.agents.synthetic import make_policy
from tests.evaluation.policies import save_run
from tests.programs import refused, succeed

PARTS = ("maps", "checks", "interventions", "probes")

CONFIG = EnvConfig(env="basic", height=36, width=48, time_limit=32)


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory):
    env = make(CONFIG)
    specs = observation_specs(env.observation_space, env.metadata)
    policy = make_policy(specs=specs, actions=env.action_space, memory="gru")
    env.close()
    path = tmp_path_factory.mktemp("explain") / "policy.safetensors"
    save_policy(path, policy, env=asdict(CONFIG), about=About(value_unit=100.0, env_steps=128))
    return path


@pytest.mark.slow
def test_a_report_a_page_and_pictures_are_written_and_finished_parts_are_kept(
    policy_file, tmp_path, capsys
):
    pytest.importorskip("captum")
    out = tmp_path / "explain"
    command = ["explain", policy_file, "--episode", 0, "--episodes", 2, "--states", 1]
    command += ["--steps", 3, "--size", "160x120", "--out", out, "--policies", policy_file]
    succeed(evaluate, *command)
    printed = capsys.readouterr().out
    assert [f"{part} of basic" in printed for part in PARTS] == [True] * 4
    found = json.loads((out / "explain.json").read_text())
    assert found["interventions"]["nothing"]["distance"]["high"] == 0.0
    assert found["checks"]["randomisation"]["occlusion"]["layers"][0] == "actor.layer critic"
    assert list(found["probes"]) == ["untrained", str(policy_file), "trained"]
    assert found["probes"]["trained"]["layers"].keys() == {"encoder", "memory"}
    page, report = ((out / f"explain.{kind}").read_text() for kind in ("html", "md"))
    assert '"method":"integrated_gradients"' in page
    assert "monsters moved left" in page
    assert "monsters moved left (painted)" in report
    assert len(list(out.glob("events.out.tfevents*.explain"))) == 1
    # After a kill, what was finished is read; a damaged part is computed again.
    (out / "parts" / "interventions.json").write_text("{")
    succeed(evaluate, *command)
    printed = capsys.readouterr().out
    assert [f"{part} of basic" in printed for part in PARTS] == [False, False, True, False]
    assert (out / "explain.md").read_text() == report
    assert not list(out.rglob(".*"))


def test_bad_input_is_refused_in_one_line(policy_file, tmp_path, capsys, monkeypatch):
    out = ("--out", tmp_path / "out")
    assert "at least 2" in refused(capsys, evaluate, "explain", policy_file, "--episodes", 1)
    assert "there is no run" in refused(capsys, evaluate, "explain", tmp_path / "none", *out)
    assert "even width" in refused(capsys, evaluate, "explain", policy_file, "--size", "3x3")
    replay = ("replay", policy_file, "--explain")
    assert "add --html" in refused(capsys, evaluate, *replay)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    line = refused(capsys, evaluate, "explain", policy_file, "--episode", 0, *out)
    assert 'captum is not installed; pip install -e ".[explain]"' in line


def test_a_policy_without_images_is_refused(tmp_path, capsys):
    pytest.importorskip("captum")
    run = save_run(tmp_path / "run", 1.0)
    assert "observes no image" in refused(capsys, evaluate, "explain", run)
