"""Tests of `storage.run_folder`."""

from __future__ import annotations

import errno
import fcntl
import json
import shlex
from pathlib import Path

import pytest
import torch

from storage.files import FileError
from storage.policy_file import About, save_policy
from storage.run_folder import RunFolder, find_policy
from tests.agents.synthetic import assert_same, make_policy, weights

CONFIG = {
    "env": {"env": "basic"},
    "agent": {"name": "ppo", "gamma": 0.9},
    "objectives": {},
    "run_dir": Path("somewhere"),
}


def fill(folder):
    """Write everything a run writes, and return the names."""
    (folder.path / "checkpoint").mkdir(parents=True)
    folder.episodes.mkdir()
    names = [
        "config.json",
        "policy.safetensors",
        "best.safetensors",
        "progress.csv",
        "evaluation.json",
        "replay.mp4",
        "replay.html",
        "policy.onnx",
        "not-finite.safetensors",
        "events.out.tfevents.1.host.2.0",
        "checkpoint/000000000512.safetensors",
        "episodes/score-000.npz",
    ]
    for name in names:
        (folder.path / name).write_bytes(b"x")
    return names


def test_files_are_where_the_documentation_says(tmp_path):
    folder = RunFolder(tmp_path)
    names = set(fill(folder))
    for file in (
        folder.config_file,
        folder.policy_file,
        folder.best_file,
        folder.checkpoint_file(512),
        *folder.checkpoints,
        folder.not_finite_file,
        folder.evaluation_file,
        folder.episodes / "score-000.npz",
    ):
        assert str(file.relative_to(tmp_path)) in names


def test_clearing_removes_what_a_run_wrote_and_nothing_else(tmp_path):
    folder = RunFolder(tmp_path / "run")
    fill(folder)
    mine = [folder.path / name for name in ("notes.txt", "episodes/mine.txt", "videos/mine.mp4")]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    folder.clear()
    assert sorted(file for file in folder.path.rglob("*") if file.is_file()) == sorted(mine)
    folder.clear()  # and again, when nothing is there
    RunFolder(tmp_path / "nowhere").clear()
    assert all(file.read_text() == "mine" for file in mine)


def test_a_folder_that_holds_no_run_is_not_cleared(tmp_path):
    folder = RunFolder(tmp_path)
    names = fill(folder)
    folder.config_file.unlink()
    folder.clear()
    left = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()}
    assert left == set(names) - {"config.json"}


def test_a_written_config_is_read_again_with_what_is_needed_to_repeat_the_run(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_config(CONFIG, torch.bfloat16)
    assert folder.read_config() == CONFIG | {"run_dir": "somewhere"}
    content = json.loads(folder.config_file.read_text())
    assert content["versions"].keys() >= {"torch", "numpy", "gymnasium", "vizdoom"}
    assert content["hardware"]["cores"] >= 1
    assert content["precision"] == "bfloat16"
    others = {"config", "command", "python", "git"}
    assert content.keys() == others | {"versions", "hardware", "precision"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"config": 7}',
        b'{"config": {}}',
        b'{"config": {"objectives": 7}}',
        b'{"config": {"learning": {}, "perception": {}}}',
        b'{"config": {"learning": 7, "perception": 7}}',
        b"\xff\xfe",
    ],
    ids=repr,
)
def test_a_damaged_config_is_refused_in_one_line(tmp_path, content):
    folder = RunFolder(tmp_path)
    folder.config_file.write_bytes(content)
    with pytest.raises(FileError, match=r"config\.json is damaged$"):
        folder.read_config()


def test_a_folder_without_a_config_is_no_run(tmp_path):
    with pytest.raises(FileError, match=r"is not a run folder: it has no config\.json$"):
        RunFolder(tmp_path).read_config()


def write_policy(path, seed):
    policy = make_policy(seed=seed)
    save_policy(path, policy, env={}, about=About(seed=seed))
    return weights(policy)


def test_the_best_policy_is_preferred_to_the_latest(tmp_path):
    folder = RunFolder(tmp_path)
    latest = write_policy(folder.policy_file, 1)
    file, found = find_policy(tmp_path)
    assert_same(weights(file.policy), latest)
    assert found == folder
    best = write_policy(folder.best_file, 2)
    assert_same(weights(find_policy(tmp_path)[0].policy), best)


def test_a_policy_file_is_taken_as_it_is(tmp_path):
    write_policy(tmp_path / "best.safetensors", 2)
    mine = write_policy(tmp_path / "mine.safetensors", 3)
    file, found = find_policy(tmp_path / "mine.safetensors")
    assert_same(weights(file.policy), mine)
    assert found == RunFolder(tmp_path)


def test_a_missing_run_is_refused_with_the_names_of_those_that_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=r"there is no run at nothing; train one with train\.py"):
        find_policy(Path("nothing"))
    folder = RunFolder(Path("runs/basic/ppo-seed0"))
    folder.path.mkdir(parents=True)
    folder.write_config({}, torch.float32)
    with pytest.raises(FileError, match="there is no run at nothing; there are runs/basic/ppo-"):
        find_policy(Path("nothing"))
    with pytest.raises(FileError, match=r"no run at \S+; did you mean runs/basic/ppo-seed0\?"):
        find_policy(Path("runs/basic/ppo-sed0"))
    with pytest.raises(FileError, match=r"that the pattern fits, such as runs/basic/ppo-"):
        find_policy(Path("runs/basic/*"))
    with pytest.raises(FileError, match=r"holds no policy\.safetensors"):
        find_policy(folder.path)


def test_a_folder_is_locked_against_a_second_training(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with (
        folder.locked(),
        pytest.raises(FileError, match=r"another training writes into .*; choose another"),
        folder.locked(),
    ):
        pass
    with folder.locked():  # It is free again.
        pass


def test_a_new_folder_into_which_nothing_was_written_is_removed(tmp_path):
    new, used, before = (RunFolder(tmp_path / name) for name in ("new", "used", "before"))
    before.path.mkdir()
    with new.locked(), used.locked(), before.locked():
        (used.path / "file").touch()
    assert [folder.path.exists() for folder in (new, used, before)] == [False, True, True]


def test_a_link_to_another_place_is_not_followed(tmp_path):
    write_policy(tmp_path / "elsewhere.safetensors", 1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(FileError, match=r"is a link to a place outside its folder; name .*else"):
        find_policy(tmp_path / "run")


def test_checkpoints_are_listed_newest_first(tmp_path):
    folder = RunFolder(tmp_path)
    for env_steps in (512, 1_000_000, 64):
        folder.checkpoint_file(env_steps).parent.mkdir(exist_ok=True)
        folder.checkpoint_file(env_steps).touch()
    assert [int(file.stem) for file in folder.checkpoints] == [1_000_000, 512, 64]


@pytest.mark.parametrize("name", ["checkpoint", "episodes"])
def test_a_linked_folder_is_refused_and_what_it_leads_to_is_left_alone(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in ("1.safetensors", "score-1.npz", "film.mp4", ".doomgrad-1.tmp"):
        (outside / file).write_bytes(b"mine")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.config_file.write_text("{}")
    (folder.path / name).symlink_to(outside)
    for action in (
        folder.clear,
        folder.remove_leftovers,
        lambda: folder.checkpoints if name == "checkpoint" else folder.episodes,
        lambda: folder.checkpoint_file(1) if name == "checkpoint" else folder.episodes,
    ):
        with pytest.raises(FileError, match="is a link to another place"):
            action()
    assert len(list(outside.iterdir())) == 4
    assert folder.holds_run


def test_what_a_killed_program_left_is_removed_from_a_run(tmp_path):
    folder = RunFolder(tmp_path)
    names = set(fill(folder))
    for place in (".", "checkpoint", "episodes"):
        (tmp_path / place / ".doomgrad-0123.tmp").touch()
    folder.remove_leftovers()
    found = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()}
    assert found == names


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    said = []
    with RunFolder(tmp_path).locked(said.append):
        pass
    (line,) = said
    assert "cannot be locked (No locks available)" in line


def test_checkpoints_without_a_configuration_are_refused(tmp_path):
    folder = RunFolder(tmp_path)
    folder.check_complete()
    fill(folder)
    folder.check_complete()
    folder.config_file.unlink()
    with pytest.raises(FileError, match=r"holds checkpoints, but no config\.json"):
        folder.check_complete()


def test_the_command_can_be_pasted(tmp_path, monkeypatch):
    command = ["train.py", "basic", "--run-dir", "a b [1] {x}, y"]
    monkeypatch.setattr("sys.argv", command)
    folder = RunFolder(tmp_path)
    folder.write_config({"objectives": {}}, torch.float32)
    assert shlex.split(folder.read_record()["command"]) == command
