"""Tests of `training.saving`."""

from __future__ import annotations

import shutil

import pytest
import torch

from storage.policy_file import load_policy
from storage.run_folder import RunFolder
from tests.storage.policies import make_agent
from training.config import default_config, with_values
from training.progress import Progress
from training.saving import bring_policy_up_to_date, save_all, save_as_policy_file

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


def test_a_damaged_checkpoint_of_more_env_steps_does_not_stay(folder):
    agent = make_agent()
    folder.checkpoint_file(0).parent.mkdir(parents=True)
    folder.checkpoint_file(999_999_999_999).write_bytes(b"damaged")
    for env_steps in (64, 128, 192):
        save(folder, agent, env_steps)
    assert [int(file.stem) for file in folder.checkpoints] == [192, 128]


def test_a_folder_that_was_removed_comes_back_as_a_run(folder):
    agent = make_agent()
    save(folder, agent, 64)
    shutil.rmtree(folder.path)
    save(folder, agent, 128)
    assert folder.read_config()["seed"] == 3
    assert [int(file.stem) for file in folder.checkpoints] == [128]


@pytest.mark.parametrize("spoil", [None, "older", "damaged", "missing"])
def test_a_policy_that_was_not_written_any_more_is_brought_up_to_date(folder, spoil):
    agent, progress = make_agent(), Progress(env_steps=64)
    save(folder, agent, 32 if spoil == "older" else 64)
    if spoil == "damaged":
        folder.policy_file.write_bytes(b"damaged")
    if spoil == "missing":
        folder.policy_file.unlink()
    before = folder.policy_file.stat() if folder.policy_file.exists() else None
    bring_policy_up_to_date(folder, agent, CONFIG, progress)
    assert load_policy(folder.policy_file).about.env_steps == 64
    assert (folder.policy_file.stat() == before) is (spoil is None)


def test_a_link_made_during_the_training_does_not_end_it(folder, tmp_path):
    said = []
    (tmp_path / "outside").mkdir()
    save(folder, make_agent(), 64)
    shutil.rmtree(folder.path / "checkpoint")
    (folder.path / "checkpoint").symlink_to(tmp_path / "outside")
    assert not save(folder, make_agent(), 128, said.append)
    assert "is a link to another place" in said[0]
    assert not list((tmp_path / "outside").iterdir())
