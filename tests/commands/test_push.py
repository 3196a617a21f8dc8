"""Tests of `commands.push`; tests/deploy/test_hub.py tests it with a hub."""

from __future__ import annotations

import pytest

import evaluate
from deploy.hub import Repository
from tests.agents.files import rewrite
from tests.evaluation.policies import save_run
from tests.programs import refused


@pytest.fixture(autouse=True)
def _logged_in(monkeypatch):
    """No hub is reached: everything here is refused before."""
    monkeypatch.setattr(Repository, "check_token", lambda self: None)


def test_only_runs_are_pushed(capsys, tmp_path):
    save_run(tmp_path)
    line = refused(capsys, evaluate, "push", tmp_path / "policy.safetensors", "me/mine")
    assert line.endswith("is not a run folder; push one that train.py wrote")


def test_a_policy_of_a_file_that_others_lack_is_not_pushed(capsys, tmp_path):
    save_run(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    path = "/nowhere/mine.cfg"
    rewrite(tmp_path / "policy.safetensors", lambda d: d["env"].update(env=path))
    assert path in refused(capsys, evaluate, "push", tmp_path, "me/mine")


@pytest.mark.parametrize("arguments", [[], ["run"]])
def test_missing_arguments_are_named(capsys, arguments):
    line = refused(capsys, evaluate, "push", *arguments)
    assert "python evaluate.py push needs" in line
