"""Tests of `evaluation.entries`."""

from __future__ import annotations

import shutil

import pytest

from agents.checkpoint import FileError
from agents.commandline import UsageError
from evaluation import entries
from evaluation.entries import find_entries, locate
from tests.evaluation.policies import save_run


def found(*runs):
    return {
        entry.name: [contestant.file.about.seed for contestant in entry.contestants]
        for entry in find_entries(runs, trust=False)
    }


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_and_files_go_by_their_path(here):
    save_run(here / "one")
    save_run(here / "two")
    shutil.copy(here / "two" / "policy.safetensors", here / "mine.safetensors")
    assert found("one", "two/", "mine.safetensors") == {
        **{"one": [0], "two": [0], "mine.safetensors": [0]}
    }
    (entry,) = find_entries(["one"], trust=False)
    assert entry.config.env == "CartPole-v1"


def test_seeds_of_one_agent_are_one_entry(here):
    for seed in (0, 1, 12):
        save_run(here / "cartpole" / f"ppo-seed{seed}", seed=seed)
    save_run(here / "cartpole" / "a2c-seed0", agent="a2c")
    assert found("cartpole/*") == {"cartpole/a2c-seed0": [0], "cartpole/ppo": [0, 1, 12]}
    # Files in them, too.
    files = [f"cartpole/ppo-seed{seed}/policy.safetensors" for seed in (0, 1)]
    assert found(*files) == {"cartpole/ppo/policy.safetensors": [0, 1]}


def test_another_agent_world_or_perception_is_another_entry(here):
    save_run(here / "x-seed0")
    save_run(here / "x-seed1", seed=1, memory="gru")
    save_run(here / "x-seed2", seed=2, env="Acrobot-v1")
    save_run(here / "x-seed3", seed=3, agent="a2c")
    save_run(here / "x-seed4", seed=4, frame_skip=2)
    assert found("x-seed*") == {f"x-seed{seed}": [seed] for seed in range(5)}


def test_no_two_entries_have_one_name(here):
    for seed in range(4):
        save_run(here / f"x-seed{seed}", seed=seed, memory="gru" if seed > 1 else "none")
    assert found("x-seed*") == {"x-seed0, x-seed1": [0, 1], "x-seed2, x-seed3": [2, 3]}
    save_run(here / "x", seed=0, agent="a2c")
    assert found("x-seed0", "x-seed1", "x") == {"x-seed0, x-seed1": [0, 1], "x": [0]}


def test_the_same_seed_again_is_no_further_seed(here):
    save_run(here / "x-seed0")
    save_run(here / "x-seed1", seed=1)
    save_run(here / "x-seed2", seed=1)
    assert found("x-*") == {"x": [0, 1], "x-seed2": [1]}


def test_a_pattern_passes_over_what_is_no_policy(here):
    save_run(here / "runs" / "good")
    (here / "runs" / "empty").mkdir()
    (here / "runs" / "notes.txt").write_text("none")
    (here / "runs" / "good" / "not-finite.safetensors").write_bytes(b"")
    (here / "runs" / "good" / "checkpoint").mkdir()
    (here / "runs" / "good" / "checkpoint" / "1.safetensors").write_bytes(b"")
    assert found("runs/*") == {"runs/good": [0]}
    assert found("runs/good/*") == {"runs/good/policy.safetensors": [0]}
    for pattern in ("runs/e*", "nothing/*", "runs/good/checkpoint/*"):
        with pytest.raises(UsageError, match="matches no run folder and no policy file"):
            found(pattern)


def test_a_damaged_policy_is_not_passed_over(here):
    save_run(here / "good")
    (here / "bad").mkdir()
    (here / "bad" / "policy.safetensors").write_bytes(b"garbage")
    with pytest.raises(FileError, match=r"bad/policy\.safetensors is damaged"):
        found("*")


def test_a_folder_may_look_like_a_pattern(here):
    save_run(here / "x[1]")
    assert found("x[1]") == {"x[1]": [0]}


@pytest.mark.parametrize("again", ["x", "./x", "x/", "{here}/x", "link", "*"])
def test_the_same_policy_twice_is_refused(here, again):
    save_run(here / "x")
    if again == "link":
        (here / "link").symlink_to("x")
    with pytest.raises(UsageError, match="is named twice"):
        found("x", again.format(here=here))


def test_what_comes_with_the_project_is_found_from_anywhere(here, monkeypatch, tmp_path_factory):
    zoo = tmp_path_factory.mktemp("project") / "zoo"
    monkeypatch.setattr(entries, "ZOO", zoo)
    for name in ("basic", "better"):
        save_run(zoo / name)
    assert found("zoo/basic") == {"zoo/basic": [0]}
    assert found("zoo/b*") == {"zoo/basic": [0], "zoo/better": [0]}
    with pytest.raises(UsageError, match="zoo/basic is named twice"):
        found("zoo/basic", "zoo/*")
    # What is there goes first.
    own = save_run(here / "zoo" / "basic", seed=7)
    assert found("zoo/basic", "zoo/better") == {"zoo/basic": [7], "zoo/better": [0]}
    assert found("zoo/*") == {"zoo/basic": [7]}
    assert locate(entries.Path(own)) == here / "zoo" / "basic"


def test_built_in_players_may_be_named(here):
    save_run(here / "x")
    assert found("random", "x") == {"x": [0]}
    for names in (["random"], ["noop", "random"], []):
        with pytest.raises(UsageError, match="name a run or a policy"):
            found(*names)
    with pytest.raises(UsageError, match="noop plays only Doom: in CartPole-v1"):
        found("x", "noop")


def test_a_run_that_is_called_as_a_player_is_reached_by_its_path(here):
    save_run(here / "random")
    assert found("./random") == {"./random": [0]}
    for seed in (0, 1):
        save_run(here / f"noop-seed{seed}", seed=seed)
    assert found("noop-seed*") == {"./noop": [0, 1]}


def test_names_can_be_printed(here):
    save_run(here / "a\nb\x1b[31mé")
    assert found("a\nb\x1b[31mé") == {r"a\nb\x1b[31mé": [0]}
