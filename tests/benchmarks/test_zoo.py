"""Tests of `benchmarks.zoo`."""

from __future__ import annotations

import pytest

from benchmarks import zoo
from storage.run_folder import RunFolder


def save(folder, *scores):
    folder.mkdir(parents=True)
    (folder / "best.safetensors").write_bytes(b"policy")
    rows = [f"{step},{score}" for step, score in enumerate(scores)]
    (folder / "progress.csv").write_text(
        "\n".join(["time/total_timesteps,eval/mean_reward", *rows])
    )


def test_the_run_with_the_best_evaluation_is_taken(tmp_path):
    save(tmp_path / "ppo-seed0", "", 3.0, 5.0, "")
    save(tmp_path / "ppo-seed1", "", 7.5, 1.0)
    save(tmp_path / "ppo-seed2", "", -1.0)
    (tmp_path / "ppo-seed3").mkdir()
    assert zoo.best_run(tmp_path).path == tmp_path / "ppo-seed1"
    assert zoo.best_evaluation(RunFolder(tmp_path / "ppo-seed0")) == 5.0


def test_a_policy_that_is_there_already_is_not_scored_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    monkeypatch.setattr(zoo, "compare", lambda *_, **__: pytest.fail("it is scored"))
    save(tmp_path / "basic" / "ppo-seed0", 1.0)
    (tmp_path / "zoo" / "basic").mkdir(parents=True)
    (tmp_path / "zoo" / "basic" / "policy.safetensors").write_bytes(b"policy")
    (tmp_path / "zoo" / "basic" / "compare.json").write_text("{}")
    zoo.keep("basic", RunFolder(tmp_path / "basic" / "ppo-seed0"))
    assert "zoo/basic is " in capsys.readouterr().out


def test_a_policy_whose_card_was_not_finished_is_scored_again(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    run = RunFolder(tmp_path / "basic" / "ppo-seed0")
    save(run.path, 1.0)

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "find_entries", interrupted)
    monkeypatch.setattr(zoo, "command_anywhere", lambda training: "")
    monkeypatch.setattr(RunFolder, "read_record", lambda folder: {"config": {}})
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            zoo.keep("basic", run)


def test_the_page_of_the_zoo_is_the_programs_own():
    assert (zoo.ZOO / "README.md").read_text() == zoo.readme()
