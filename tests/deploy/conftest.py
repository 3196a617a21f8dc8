"""Runs to push, and a hub on this machine to push them to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import evaluate
from storage.run_folder import BEST, EVALUATION, POLICY, VIDEO, RunFolder
from tests.deploy.fake_hub import logged_in_hub
from tests.evaluation.policies import save_run
from training.config import default_config


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run folder with the files that training writes: neither scored nor with a video."""
    folder = tmp_path_factory.mktemp("runs") / "CartPole-v1" / "ppo-seed0"
    save_run(folder, 0.1, env_steps=128)
    (folder / POLICY).rename(folder / BEST)
    save_run(folder, env_steps=256)
    RunFolder(folder).write_config(default_config("CartPole-v1").as_dict(), torch.float32)
    return folder


@pytest.fixture(scope="session")
def scored_once(trained, tmp_path_factory):
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("scored") / "run")
    assert evaluate.main(["score", str(folder), "--episodes", "2", "--greedy"]) == 0
    assert (folder / EVALUATION).is_file()
    (folder / VIDEO).write_bytes(b"\0\0\0\x20ftypisom")
    return folder


@pytest.fixture
def scored(scored_once, tmp_path):
    """A run folder that has every file of a push."""
    return shutil.copytree(scored_once, tmp_path / "scored")


@pytest.fixture
def policy(tmp_path):
    """A policy file."""
    return Path(save_run(tmp_path / "made")) / POLICY


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that this machine is logged in to; the working directory is empty."""
    pytest.importorskip("huggingface_hub", reason='pip install -e ".[hub]"')
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with logged_in_hub(monkeypatch, tmp_path) as hub:
        yield hub
