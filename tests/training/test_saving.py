"""Tests of `training.saving`."""

from __future__ import annotations

import pytest
import torch

from storage.policy_file import load_policy
from storage.run_folder import RunFolder
from tests.storage.policies import make_agent
from training.config import default_config, with_values
from training.progress import Progress
from training.saving import save_all, save_as_policy_file

CONFIG = with_values(default_config("CartPole-v1"), {"seed": 3})
COLLECTOR_STATE = {"actions/0": torch.arange(3)}


def save(folder, agent, env_steps, say=pytest.fail):
    return save_all(folder, agent, CONFIG, Progress(env_steps=env_steps), COLLECTOR_STATE, say)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def test_two_checkpoints_are_kept(folder):
    agent = make_agent()
    for env_steps in (64, 128, 192, 256):
        save(folder, agent, env_steps)
    assert [int(file.stem) for file in folder.checkpoints] == [256, 192]
    file = load_policy(folder.policy_file)
    assert (file.about.env_steps, file.about.seed, file.about.agent) == (256, 3, "ppo")
    assert file.env["env"] == "CartPole-v1"


def test_the_best_policy_is_a_file_of_its_own(folder):
    save_as_policy_file(folder, make_agent(), CONFIG, Progress(env_steps=5), best=True)
    assert load_policy(folder.best_file).about.env_steps == 5
    assert not folder.policy_file.exists()


def test_what_cannot_be_written_is_reported(folder):
    said = []
    folder.path.mkdir()
    (folder.path / "checkpoint").touch()  # A file in place of the folder.
    assert not save(folder, make_agent(), 64, said.append)
    (line,) = said
    assert "cannot be written" in line
    assert not folder.policy_file.exists()
