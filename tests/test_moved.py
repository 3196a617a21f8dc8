"""A run of a user's own files that is moved together with them, or without them."""

from __future__ import annotations

import shutil

import pytest

import evaluate
import train
from envs.doom.cfg import BUNDLED
from storage.policy_file import load_policy
from storage.run_folder import RunFolder
from tests.programs import refused, succeed

SMALL = ("--num-envs", 2, "--num-groups", 1, "--num-workers", 1, "--rollout-length", 16)
SHORT = (*SMALL, "--eval-episodes", 1, "--time-limit", 40)
ONE = ("--episodes", 1, "--greedy")


@pytest.mark.slow
def test_a_run_is_moved_with_its_files(capsys, monkeypatch, tmp_path):
    old, new, run = tmp_path / "old", tmp_path / "new", "runs/mine/ppo-seed0"
    old.mkdir()
    shutil.copy(BUNDLED / "basic.wad", old / "mine.wad")
    text = (BUNDLED / "basic.cfg").read_text().replace("basic.wad", "mine.wad")
    (old / "mine.cfg").write_text(text)
    monkeypatch.chdir(old)
    succeed(train, "mine.cfg", *SHORT, "--total-env-steps", 32)
    assert len(RunFolder(old / run).read_config()["env"]["files"]) == 2
    # All of it, to another folder: everything goes on from there.
    monkeypatch.chdir(tmp_path)
    old.rename(new)
    capsys.readouterr()
    succeed(evaluate, "score", new / run, *ONE)
    line = f"{old}/mine.cfg is now {new}/mine.cfg: the content is the same\n"
    assert capsys.readouterr().err.count(line) == 1
    monkeypatch.chdir(new)
    succeed(train, "mine.cfg", *SHORT, "--total-env-steps", 64)
    assert load_policy(new / run / "policy.safetensors").about.env_steps == 64
    # The run alone: it can be exported, and shown as soon as its files are in sight.
    shutil.copytree(new / run, tmp_path / "copy")
    (new / "mine.cfg").rename(tmp_path / "elsewhere.cfg")
    assert "mine.cfg is gone; put it" in refused(capsys, evaluate, "score", tmp_path / "copy", *ONE)
    succeed(evaluate, "export", tmp_path / "copy")
    shutil.copy(new / "mine.wad", tmp_path / "copy")
    shutil.copy(tmp_path / "elsewhere.cfg", tmp_path / "copy" / "mine.cfg")
    succeed(evaluate, "replay", tmp_path / "copy", "--episode", "training-first", "--seconds", 0.2)
    # Other files are another environment.
    (new / "mine.cfg").write_text(f"{text}\nliving_reward = -2\n")
    line = refused(capsys, train, "mine.cfg", *SHORT, "--total-env-steps", 96)
    assert "holds a run with other files: the SHA-256 of" in line
    assert "mine.cfg is not as it was" in refused(capsys, evaluate, "score", new / run, *ONE)
