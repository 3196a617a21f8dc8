"""Tests of `commands.pull`; tests/deploy/test_hub.py tests it with a hub."""

from __future__ import annotations

from pathlib import Path

import pytest

import evaluate
from deploy.hub import Repository
from storage.policy_file import load_policy
from tests.evaluation.policies import save_run
from tests.programs import succeed


@pytest.mark.parametrize(
    ("options", "folder"), [([], "hub/me--mine"), (["--out", "elsewhere"], "elsewhere")]
)
@pytest.mark.parametrize(
    ("env", "trust"), [("CartPole-v1", ""), ("tests.envs.toy:Echo-v0", " --trust")]
)
def test_it_prints_what_was_pulled_and_what_to_do_next(
    capsys, monkeypatch, tmp_path, options, folder, env, trust
):
    asked = []

    def pull(self, out, *, revision, trust):
        asked.append((out, revision, trust))
        save_run(tmp_path, env=env, env_steps=1000)
        return load_policy(tmp_path / "policy.safetensors")

    monkeypatch.setattr(Repository, "pull", pull)
    succeed(evaluate, "pull", "me/mine", "--revision", "v1", *options)
    assert asked == [(Path(folder), "v1", False)]
    printed = capsys.readouterr().out
    assert f"{folder}: {env}, trained with ppo for 1,000 env steps" in printed
    assert f"watch it:  python evaluate.py watch {folder}{trust}\n" in printed
    assert f"score it:  python evaluate.py score {folder}{trust}\n" in printed
