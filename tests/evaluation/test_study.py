"""Tests of `evaluation.study`: real studies and processes, whose trials train nothing."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import resource
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from agents.checkpoint import FileError
from agents.commandline import UsageError
from agents.run import RunFolder
from agents.search import Choice, Range
from envs import EnvConfig
from evaluation.statistics import summarize
from evaluation.study import Plan, open_study

FACTS = {"env": "CartPole-v1", "learning_rate": 0.5, "num_epochs": None, "seed": 0}
SPACE = {"learning_rate": Range(1e-5, 0.5, log=True), "num_epochs": Choice((None, 1, 2))}


def plan(folder, **changes):
    fields = {
        **{"facts": FACTS, "space": SPACE, "num_trials": 4, "num_envs": 2, "seed": 0},
        **{"env": EnvConfig(env="CartPole-v1"), "total_env_steps": 100},
        **{"eval_every": 10, "eval_episodes": 4},
    }
    return Plan(folder=folder / "tune", **{**fields, **changes})


def score(value):
    return summarize([np.full(3, value)], 1.0)


def search(study, count=1000):
    """Complete trials, the smaller the learning rate the better, and give what was tried."""
    tried = []
    while len(tried) < count and (trial := study.take()):
        tried.append((trial.number, trial.values))
        trial.complete(score(1 / trial.values["learning_rate"]))
    return tried


def states(folder, **changes):
    with open_study(plan(folder, **changes), fresh=False) as study:
        return dict(study.findings().states)


@contextlib.contextmanager
def another_process(folder, work):
    """Fork, and give the process with what `work` says in it; it lives until it is killed."""

    def run(connection):
        try:
            with open_study(plan(folder), fresh=False) as study:
                connection.send(work(study))
                connection.recv()
        except FileError as error:
            connection.send(str(error))

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(theirs,))
    process.start()
    try:
        yield process, ours
    finally:
        kill(process)


def complete_without_a_disk(study):
    trial = study.take()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    trial.complete(score(1.0))


def kill(process):
    process.kill()
    process.join()


def take_one(study):
    trial = study.take()
    return trial.number, trial.values


def test_a_search_begins_with_its_start_and_finds_the_best(tmp_path):
    with open_study(plan(tmp_path), fresh=False) as study:
        tried = search(study)
        findings = study.findings()
    assert [number for number, _ in tried] == [0, 1, 2, 3]
    assert tried[0][1] == {"learning_rate": 0.5, "num_epochs": None}
    assert findings.states == {"complete": 4}
    best = findings.complete[0]
    assert (best.number, best.values) == min(tried, key=lambda t: t[1]["learning_rate"])
    assert best.mean == best.ci_low == best.ci_high == 1 / best.values["learning_rate"]
    assert best.episodes == 3


def test_what_is_drawn_has_three_digits_and_what_is_begun_with_has_its_own(tmp_path):
    facts = {**FACTS, "learning_rate": 0.0123456}
    with open_study(plan(tmp_path, facts=facts), fresh=False) as study:
        (_, first), *others = search(study)
    assert first["learning_rate"] == 0.0123456
    for _, values in others:
        assert values["learning_rate"] == float(f"{values['learning_rate']:.3g}")


def test_a_search_that_was_interrupted_tries_what_it_would_have_tried(tmp_path):
    (tmp_path / "other").mkdir()
    with open_study(plan(tmp_path, num_trials=14), fresh=False) as study:
        whole = search(study)
    parts = []
    for count in (1, 11, 3):
        with open_study(plan(tmp_path / "other", num_trials=14), fresh=False) as study:
            parts += search(study, count)
    assert len(parts) == 14
    assert parts == whole
    assert len({tuple(values.items()) for _, values in whole}) == 14


def test_more_trials_can_be_asked_for(tmp_path):
    for num_trials, more in ((2, 2), (2, 0), (5, 3)):
        with open_study(plan(tmp_path, num_trials=num_trials), fresh=False) as study:
            assert len(search(study)) == more


def test_failed_trials_do_not_count_and_are_not_found(tmp_path):
    with open_study(plan(tmp_path, num_trials=2), fresh=False) as study:
        study.take().fail()
        study.take().prune()
        assert [number for number, _ in search(study)] == [2]
        assert study.findings().states == {"fail": 1, "pruned": 1, "complete": 1}
        assert [finding.number for finding in study.findings().complete] == [2]


def test_a_trial_that_was_put_down_is_gone_on_with_any_number_of_times(tmp_path):
    values = []
    for _ in range(5):
        with open_study(plan(tmp_path), fresh=False) as study:
            trial = study.take()
            values.append((trial.number, trial.values))
            trial.put_down()
    assert values == [(0, {"learning_rate": 0.5, "num_epochs": None})] * 5


def test_a_trial_whose_process_was_killed_is_gone_on_with(tmp_path):
    with open_study(plan(tmp_path), fresh=False) as study:
        search(study, 1)
        with another_process(tmp_path, take_one) as (process, connection):
            taken = connection.recv()
            # While it lives, its trial is its own.
            trial = study.take()
            assert (taken[0], trial.number) == (1, 2)
            trial.complete(score(1.0))
            kill(process)
        assert take_one(study) == taken


def test_a_trial_that_always_kills_its_process_fails(tmp_path):
    for _ in range(3):
        with another_process(tmp_path, take_one) as (_, connection):
            assert connection.recv()[0] == 0
    with open_study(plan(tmp_path), fresh=False) as study:
        assert study.take().number == 1
        assert study.findings().states == {"fail": 1, "running": 1}


def test_processes_share_the_work_and_do_no_more_than_it(tmp_path):
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(another_process(tmp_path, search)) for _ in range(3)]
        tried = [trial for _, connection in others for trial in connection.recv()]
    assert sorted(number for number, _ in tried) == [0, 1, 2, 3]
    assert states(tmp_path) == {"complete": 4}


def test_a_bad_training_is_given_up_after_a_third(tmp_path):
    with open_study(plan(tmp_path, num_trials=9), fresh=False) as study:
        for _ in range(5):
            trial = study.take()
            # The first ones are never given up, however bad they are.
            assert all(trial.report(part, 100.0 - trial.number) for part in range(1, 11))
            trial.complete(score(100.0))
        bad = study.take()
        assert [bad.report(part, 1.0) for part in range(1, 5)] == [True, True, False, False]
        bad.prune()
        good = study.take()
        assert all(good.report(part, 99.0) for part in range(1, 11))
        # Who was as good before is given time.
        assert good.report(11, 1.0)


def test_an_evaluation_may_be_reported_again(tmp_path, recwarn):
    for part, value in ((1, 5.0), (2, 6.0), (1, 7.0), (2, 8.0)):
        with open_study(plan(tmp_path), fresh=False) as study:
            trial = study.take()
            assert trial.report(part, value)
            trial.put_down()
    journal = (tmp_path / "tune" / "study.journal").read_text()
    assert journal.count('"intermediate_value"') == 2
    assert not recwarn


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"facts": {**FACTS, "env": "Acrobot-v1"}}, "with env CartPole-v1, not Acrobot-v1;"),
        (
            {"facts": {**FACTS, "learning_rate": 0.1}},
            "learning_rate searched in 1e-05 to 0.5, from",
        ),
        ({"space": {"num_epochs": SPACE["num_epochs"]}}, "from 0.5, not 0.5; choose another --run"),
        ({"facts": {**FACTS, "gamma": 0.9}}, "holds a search with gamma None, not 0.9;"),
    ],
)
def test_another_search_is_refused_and_fresh_begins_it(tmp_path, changes, expected):
    with open_study(plan(tmp_path), fresh=False) as study:
        assert len(search(study, 2)) == 2
    with pytest.raises(FileError) as error, open_study(plan(tmp_path, **changes), fresh=False):
        pass
    assert expected in str(error.value)
    assert "start over with --fresh" in str(error.value)
    assert states(tmp_path) == {"complete": 2}
    with open_study(plan(tmp_path, **changes), fresh=True) as study:
        assert study.take().number == 0


def test_fresh_removes_the_trials_runs_and_nothing_else(tmp_path):
    with open_study(plan(tmp_path), fresh=False) as study:
        trial = study.take()
        trial.folder.path.mkdir()
        trial.folder.write_config(asdict(EnvConfig()), torch.float32)
        (trial.folder.path / "progress.csv").write_text("")
        (trial.folder.path / "notes.txt").write_text("mine")
    with open_study(plan(tmp_path), fresh=True) as study:
        folder = study.take().folder
    assert [file.name for file in folder.path.iterdir()] == ["notes.txt"]


def test_fresh_is_refused_while_others_search(tmp_path):
    with another_process(tmp_path, take_one) as (_, connection):
        assert connection.recv()[0] == 0
        with (
            pytest.raises(UsageError, match="others search in"),
            open_study(plan(tmp_path), fresh=True),
        ):
            pass
        assert states(tmp_path) == {"running": 1}


def test_a_folder_that_is_a_file_or_a_run_is_refused(tmp_path):
    (tmp_path / "tune").write_text("")
    with pytest.raises(UsageError, match="is a file"), open_study(plan(tmp_path), fresh=False):
        pass
    (tmp_path / "tune").unlink()
    (tmp_path / "tune").mkdir()
    RunFolder(tmp_path / "tune").write_config({}, torch.float32)
    for fresh in (False, True):
        with (
            pytest.raises(UsageError, match="holds a run"),
            open_study(plan(tmp_path), fresh=fresh),
        ):
            pass
    assert [file.name for file in (tmp_path / "tune").iterdir()] == ["config.json"]


def test_a_full_disk_ends_the_search_which_goes_on_later(tmp_path):
    with another_process(tmp_path, complete_without_a_disk) as (_, connection):
        said = connection.recv()
    assert "could not be written (File too large)" in said
    assert "the same command goes on" in said
    with open_study(plan(tmp_path), fresh=False) as study:
        assert [number for number, _ in search(study)] == [0, 1, 2, 3]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FileError, match="could not be written"),
        open_study(plan(tmp_path / "file"), fresh=False),
    ):
        pass


def test_half_a_line_of_a_process_that_died_is_dropped(tmp_path):
    with open_study(plan(tmp_path), fresh=False) as study:
        assert len(search(study, 2)) == 2
    journal = tmp_path / "tune" / "study.journal"
    journal.write_bytes(journal.read_bytes() + b'{"op_code":4,"worker')
    with open_study(plan(tmp_path), fresh=False) as study:
        assert [number for number, _ in search(study)] == [2, 3]
    for line in journal.read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "{" + text,
        lambda text: text.replace("op_code", "opcode"),
        lambda text: text.replace('"op_code":4', '"op_code":99'),
        lambda text: text.replace('"facts":{', '"facts":[{').replace('"seed":0}', '"seed":0}]'),
        lambda text: "\x00\xff" * 1000 + "\n" + text,
        lambda text: text.replace("FloatDistribution", "Unheard"),
        lambda text: text.replace('"score"', '"scone"'),
        lambda text: text.replace('"ci_low":', '"low":'),
    ],
)
def test_a_damaged_journal_is_named_and_fresh_begins_anew(tmp_path, spoil):
    with open_study(plan(tmp_path), fresh=False) as study:
        assert len(search(study, 2)) == 2
    journal = tmp_path / "tune" / "study.journal"
    before = journal.read_text()
    assert spoil(before) != before
    journal.write_text(spoil(before))
    said = "journal is damaged; start over with --fresh"
    with pytest.raises(FileError, match=said), open_study(plan(tmp_path), fresh=False):
        pass
    with open_study(replace(plan(tmp_path), num_trials=1), fresh=True) as study:
        assert len(search(study)) == 1
