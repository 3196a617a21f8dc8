"""Tests of `commands.score`."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import evaluate
from storage.recording import load_recording
from tests.agents.files import rewrite
from tests.evaluation.policies import save_run
from tests.programs import refused, status_of, succeed


@pytest.fixture(scope="module")
def scored(doom_run, tmp_path_factory):
    """A copy of the shared run, scored."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(doom_run, folder)
    (folder / "episodes" / "score-sampled-000000099.npz").write_bytes(b"of an earlier score")
    succeed(evaluate, "score", folder, "--episodes", 4, "--num-envs", 2)
    return folder


def test_the_result_is_kept_in_the_run_folder(scored):
    result = json.loads((scored / "evaluation.json").read_text())
    assert result["env"] == "basic"
    assert result["policy"]["agent"] == "ppo"
    assert result["protocol"] == {
        "episodes": 4,
        "seeds": [0, 3],
        "num_envs": 2,
        "reward": "native",
        "skill": 5,
        "frame_skip": 4,
        "time_limit_frames": 300,
    }
    assert result["scores"].keys() == {"sampled", "greedy", "random", "noop"}
    assert result["mean"] == result["scores"]["sampled"]["mean"]
    assert result["mean"] == pytest.approx(np.mean(result["returns"]["sampled"]))
    assert result["scores"]["noop"]["mean"] == -300


def test_what_was_scored_is_recorded_seed_by_seed(scored):
    returns = json.loads((scored / "evaluation.json").read_text())["returns"]
    for mode in ("sampled", "greedy"):
        files = sorted((scored / "episodes").glob(f"score-{mode}-*.npz"))
        episodes = [load_recording(file).episode for file in files]
        assert [episode.episode_return for episode in episodes] == returns[mode]
        assert [episode.seed for episode in episodes] == [0, 1, 2, 3]


def test_the_table_has_baselines_and_the_reference(tmp_path, capsys):
    run = save_run(tmp_path / "run")
    succeed(evaluate, "score", run, "--episodes", 2)
    table = capsys.readouterr().out
    assert "random" in table
    # In CartPole there is no action that does nothing.
    assert "noop" not in table


def test_a_policy_file_is_scored_the_same_twice_and_nothing_is_kept(doom_run, tmp_path, capsys):
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    policy = tmp_path / "policy.safetensors"
    shutil.copy(doom_run / "policy.safetensors", policy)
    for path in (first, second):
        options = ("--episodes", 2, "--num-envs", 2, "--greedy", "--json", path)
        succeed(evaluate, "score", policy, *options)
    assert first.read_text() == second.read_text()
    assert json.loads(first.read_text())["scores"].keys() == {"greedy", "random", "noop"}
    assert {file.name for file in tmp_path.iterdir()} == {policy.name, first.name, second.name}
    printed = capsys.readouterr().out
    for word in ("greedy", "random", "noop", "reference", "80.40"):
        assert word in printed


def test_scores_are_at_native_skill_and_time_limit_whatever_was_trained(doom_run, tmp_path):
    policy, result = tmp_path / "easy.safetensors", tmp_path / "easy.json"
    shutil.copy(doom_run / "policy.safetensors", policy)
    rewrite(policy, lambda description: description["env"].update(skill=1, time_limit=20))
    succeed(evaluate, "score", policy, "--episodes", 1, "--greedy", "--json", result)
    content = json.loads(result.read_text())
    assert content["protocol"]["skill"] == 5
    assert content["protocol"]["time_limit_frames"] == 300
    assert content["scores"]["noop"]["mean"] == -300


def test_scores_are_printed_before_anything_that_may_not_be_written(tmp_path, capsys, monkeypatch):
    """What a full disk or a folder that was removed costs is the file, not the result."""
    run = Path(save_run(tmp_path / "run"))
    (run / "config.json").write_text("{}")  # It marks the folder as a run's.
    old = run / "episodes" / "score-sampled-000000099.npz"
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"of an earlier score")

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("storage.files.write_json", full)
    capsys.readouterr()
    assert status_of(evaluate, "score", run, "--episodes", 2, "--num-envs", 2) == 2
    said = capsys.readouterr()
    assert "sampled" in said.out
    assert said.err == f"error: {run / 'evaluation.json'}: No space left on device\n"
    assert old.exists()


def test_what_cannot_be_written_is_refused_before_anything_is_played(tmp_path, capsys):
    run = Path(save_run(tmp_path / "run"))
    (run / "config.json").write_text("{}")  # It marks the folder as a run's.
    line = refused(capsys, evaluate, "score", run, "--json", "/proc/nothing/scores.json")
    assert "nothing can be written into /proc/nothing" in line
    shutil.rmtree(run / "episodes", ignore_errors=True)
    (run / "episodes").symlink_to(tmp_path)
    assert "is a link to another place" in refused(capsys, evaluate, "score", run)
    (run / "episodes").unlink()
    (run / "episodes").touch()
    assert "is a file; name a folder" in refused(capsys, evaluate, "score", run)
