"""Tests of `evaluation.entries`."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from envs.moved import own_files
from evaluation import entries
from evaluation.entries import find_entries, is_run, labelled, locate, output_folder
from evaluation.errors import EvaluationError
from storage.files import FileError
from storage.run_folder import CONFIG, POLICY, RunFolder
from tests.agents.files import rewrite
from tests.envs.maps import room, write_wad
from tests.evaluation.policies import save_run
from training.config import default_config, with_values


def found(*runs):
    """Return the training seeds of each entry by its name."""
    return {
        entry.name: [contestant.file.about.seed for contestant in entry.contestants]
        for entry in find_entries(runs, trust=False)
    }


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_and_files_are_named_by_their_paths(here):
    save_run(here / "one")
    save_run(here / "two")
    shutil.copy(here / "two" / "policy.safetensors", here / "mine.safetensors")
    assert found("one", "two/", "mine.safetensors") == {
        "one": [0],
        "two": [0],
        "mine.safetensors": [0],
    }
    (entry,) = find_entries(["one"], trust=False)
    assert entry.config.env == "CartPole-v1"


def test_seeds_of_one_agent_are_one_entry(here):
    for seed in (0, 1, 12):
        save_run(here / "cartpole" / f"ppo-seed{seed}", seed=seed)
    save_run(here / "cartpole" / "a2c-seed0", agent="a2c")
    assert found("cartpole/*") == {"cartpole/a2c-seed0": [0], "cartpole/ppo": [0, 1, 12]}
    # The same holds for files in the folders.
    files = [f"cartpole/ppo-seed{seed}/policy.safetensors" for seed in (0, 1)]
    assert found(*files) == {"cartpole/ppo/policy.safetensors": [0, 1]}


def test_copies_of_the_same_files_are_one_environment(here, capsys):
    for seed in (0, 1, 2):
        run = here / f"mine-seed{seed}"
        save_run(run, seed=seed)
        wad = write_wad(run / "own.wad", room(zombie_at=64 if seed == 2 else None))
        env = {"env": f"/home/of/{seed}/own.wad", "files": own_files(str(wad))}
        rewrite(run / "policy.safetensors", lambda d, env=env: d["env"].update(env))
    same, other = find_entries(["mine-seed*"], trust=False)
    assert [c.file.about.seed for c in same.contestants] == [0, 1]
    assert {c.config.env for c in same.contestants} == {str(here / "mine-seed0" / "own.wad")}
    assert [c.file.about.seed for c in other.contestants] == [2]
    said = capsys.readouterr().err
    assert f"/home/of/0/own.wad is now {here}/mine-seed0/own.wad: the content is the same" in said
    (here / "mine-seed2" / "own.wad").unlink()
    message = r"names an environment that cannot be made: /home/of/2/own\.wad is gone; put it"
    with pytest.raises(FileError, match=message):
        find_entries(["mine-seed2"], trust=False)


def test_seeds_that_were_trained_with_other_settings_are_another_entry(here):
    config = default_config("CartPole-v1")
    for seed, gamma in enumerate((0.98, 0.98, 0.9)):
        run = here / f"x-seed{seed}"
        save_run(run, seed=seed)
        trained = with_values(config, {"agent.gamma": gamma, "seed": seed})
        RunFolder(run).write_config(trained.as_dict(), torch.float32)
    record = json.loads((here / "x-seed1" / CONFIG).read_text())
    del record["config"]["agent"]["bootstrap_truncated"]  # As a run of before it existed.
    (here / "x-seed1" / CONFIG).write_text(json.dumps(record))
    assert found("x-seed*") == {"x": [0, 1], "x-seed2": [2]}


def test_another_agent_environment_or_perception_is_another_entry(here):
    save_run(here / "x-seed0")
    save_run(here / "x-seed1", seed=1, memory="gru")
    save_run(here / "x-seed2", seed=2, env="Acrobot-v1")
    save_run(here / "x-seed3", seed=3, agent="a2c")
    save_run(here / "x-seed4", seed=4, frame_skip=2)
    assert found("x-seed*") == {f"x-seed{seed}": [seed] for seed in range(5)}


def test_entries_have_different_names(here):
    for seed in range(4):
        save_run(here / f"x-seed{seed}", seed=seed, memory="gru" if seed > 1 else "none")
    assert found("x-seed*") == {"x-seed0, x-seed1": [0, 1], "x-seed2, x-seed3": [2, 3]}
    save_run(here / "x", seed=0, agent="a2c")
    assert found("x-seed0", "x-seed1", "x") == {"x-seed0, x-seed1": [0, 1], "x": [0]}


def test_the_same_training_seed_again_is_another_entry(here):
    save_run(here / "x-seed0")
    save_run(here / "x-seed1", seed=1)
    save_run(here / "x-seed2", seed=1)
    assert found("x-*") == {"x": [0, 1], "x-seed2": [1]}


def test_files_that_match_a_pattern_but_are_no_policies_are_ignored(here):
    save_run(here / "runs" / "good")
    (here / "runs" / "empty").mkdir()
    (here / "runs" / "notes.txt").write_text("none")
    (here / "runs" / "good" / "not-finite.safetensors").write_bytes(b"")
    (here / "runs" / "good" / "checkpoint").mkdir()
    (here / "runs" / "good" / "checkpoint" / "1.safetensors").write_bytes(b"")
    assert found("runs/*") == {"runs/good": [0]}
    assert found("runs/good/*") == {"runs/good/policy.safetensors": [0]}
    for pattern in ("runs/e*", "nothing/*", "runs/good/checkpoint/*"):
        with pytest.raises(EvaluationError, match="matches no run folder and no policy file"):
            found(pattern)


def test_a_damaged_policy_is_not_ignored(here):
    save_run(here / "good")
    (here / "bad").mkdir()
    (here / "bad" / "policy.safetensors").write_bytes(b"garbage")
    with pytest.raises(FileError, match=r"bad/policy\.safetensors is damaged"):
        found("*")


def test_the_name_of_a_folder_may_look_like_a_pattern(here):
    save_run(here / "x[1]")
    assert found("x[1]") == {"x[1]": [0]}


@pytest.mark.parametrize("again", ["x", "./x", "x/", "{here}/x", "link", "*"])
def test_the_same_policy_twice_is_refused(here, again):
    save_run(here / "x")
    if again == "link":
        (here / "link").symlink_to("x")
    with pytest.raises(EvaluationError, match="is named twice"):
        found("x", again.format(here=here))


def test_policies_that_come_with_the_project_are_found_from_any_folder(
    here, monkeypatch, tmp_path_factory
):
    zoo = tmp_path_factory.mktemp("project") / "zoo"
    monkeypatch.setattr(entries, "ZOO", zoo)
    for name in ("basic", "better"):
        save_run(zoo / name)
    assert found("zoo/basic") == {"zoo/basic": [0]}
    assert found("zoo/b*") == {"zoo/basic": [0], "zoo/better": [0]}
    with pytest.raises(EvaluationError, match="zoo/basic is named twice"):
        found("zoo/basic", "zoo/*")
    # A folder of this name in the current folder takes precedence.
    own = save_run(here / "zoo" / "basic", seed=7)
    assert found("zoo/basic", "zoo/better") == {"zoo/basic": [7], "zoo/better": [0]}
    assert found("zoo/*") == {"zoo/basic": [7]}
    assert locate(entries.Path(own)) == here / "zoo" / "basic"


def test_baselines_may_be_named(here):
    save_run(here / "x")
    assert found("random", "x") == {"x": [0]}
    for names in (["random"], ["noop", "random"], []):
        with pytest.raises(EvaluationError, match="name a run or a policy"):
            found(*names)
    with pytest.raises(EvaluationError, match="no action of CartPole-v1 does nothing"):
        found("x", "noop")


def test_a_run_with_the_name_of_a_baseline_is_named_by_its_path(here):
    save_run(here / "random")
    assert found("./random") == {"./random": [0]}
    for seed in (0, 1):
        save_run(here / f"noop-seed{seed}", seed=seed)
    assert found("noop-seed*") == {"./noop": [0, 1]}


def test_names_contain_only_printable_characters(here):
    save_run(here / "a\nb\x1b[31mé")
    assert found("a\nb\x1b[31mé") == {r"a\nb\x1b[31mé": [0]}


def test_results_belong_to_a_run_only_if_its_folder_is_named(here):
    save_run(here / "run")
    (here / "run" / CONFIG).write_text("{}")
    assert is_run(here / "run", RunFolder(here / "run"))
    # It may not be the run's best policy.
    assert not is_run(here / "run" / POLICY, RunFolder(here / "run"))
    # A folder with a policy alone, as in the zoo, is not a run.
    save_run(here / "policy-only")
    assert not is_run(here / "policy-only", RunFolder(here / "policy-only"))


def test_output_goes_to_the_folder_of_a_run_or_a_file_else_to_the_current_folder(here):
    for name in ("run", "zoo/basic"):
        save_run(here / name)
    (here / "run" / CONFIG).write_text("{}")
    run, zoo = here / "run", here / "zoo" / "basic"
    assert output_folder(run, RunFolder(run)) == run
    assert output_folder(run / POLICY, RunFolder(run)) == run
    assert output_folder(zoo / POLICY, RunFolder(zoo)) == zoo
    assert output_folder(zoo, RunFolder(zoo)) == entries.Path()


def test_output_about_the_zoo_is_not_written_into_the_project(here):
    for run in ("zoo/basic", str(entries.ZOO / "basic"), str(entries.ZOO / "basic" / POLICY)):
        folder = RunFolder(entries.ZOO / "basic")
        assert output_folder(entries.Path(run), folder) == entries.Path("runs/zoo/basic")


def test_entries_are_called_as_the_user_says(here):
    for seed in (0, 1):
        save_run(here / f"x-seed{seed}", seed=seed)
    save_run(here / "y")
    named = find_entries(["x-seed*", "y"], trust=False)
    assert [entry.name for entry in labelled(named, ["mine\n", "theirs"])] == ["mine\\n", "theirs"]
    assert labelled(named, []) == named
    for labels, expected in (
        (["one"], r"name each of the 2 entries \(x, y\), got 1"),
        (["same", "same"], "must differ"),
        (["random", "y"], "must differ"),
        ([" ", "y"], "must differ"),
    ):
        with pytest.raises(EvaluationError, match=expected):
            labelled(named, labels)
