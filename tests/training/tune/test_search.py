"""Tests of `training.tune.search`: real studies and processes, whose trials train nothing."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
from dataclasses import asdict, replace

import pytest
import torch

from envs import EnvConfig
from storage.files import FileError
from storage.run_folder import RunFolder
from tests.training.tune.plans import FACTS, SPACE, START, plan, score
from training.errors import TrainingError
from training.tune.search import open_study


def search(study, count=1000):
    """Complete trials, and return what was tried; a lower learning rate has a higher score."""
    tried = []
    while len(tried) < count and (trial := study.take()):
        tried.append((trial.number, trial.values))
        trial.complete(score(1 / trial.values["learning_rate"]))
    return tried


def states(folder, **changes):
    with open_study(plan(folder, **changes), fresh=False) as study:
        return dict(study.results().states)


@contextlib.contextmanager
def another_process(folder, work):
    """Fork a process that sends what `work` returns, and then lives until it is killed."""

    def run(connection):
        try:
            with open_study(plan(folder), fresh=False) as study:
                connection.send(work(study))
                connection.recv()
        except FileError as error:
            connection.send(str(error))

    context = multiprocessing.get_context("fork")
    connection, child_connection = context.Pipe()
    process = context.Process(target=run, args=(child_connection,))
    process.start()
    try:
        yield process, connection
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


def test_a_search_starts_with_the_start_values_and_finds_the_best(tmp_path):
    with open_study(plan(tmp_path), fresh=False) as study:
        tried = search(study)
        results = study.results()
    assert [number for number, _ in tried] == [0, 1, 2, 3]
    assert tried[0][1] == {"learning_rate": 0.5, "num_epochs": None}
    assert results.states == {"complete": 4}
    best = results.complete[0]
    assert (best.number, best.values) == min(tried, key=lambda t: t[1]["learning_rate"])
    assert best.mean == best.ci_low == best.ci_high == 1 / best.values["learning_rate"]
    assert best.episodes == 3


def test_drawn_values_have_three_digits_and_start_values_all_of_theirs(tmp_path):
    start = {**START, "learning_rate": 0.0123456}
    with open_study(plan(tmp_path, start=start), fresh=False) as study:
        (_, first), *others = search(study)
    assert first["learning_rate"] == 0.0123456
    for _, values in others:
        assert values["learning_rate"] == float(f"{values['learning_rate']:.3g}")


def test_an_interrupted_search_tries_the_same_values(tmp_path):
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


def test_the_number_of_trials_can_be_raised(tmp_path):
    for num_trials, more in ((2, 2), (2, 0), (5, 3)):
        with open_study(plan(tmp_path, num_trials=num_trials), fresh=False) as study:
            assert len(search(study)) == more


def test_failed_trials_are_not_counted_and_have_no_result(tmp_path):
    with open_study(plan(tmp_path, num_trials=2), fresh=False) as study:
        study.take().fail()
        study.take().prune()
        assert [number for number, _ in search(study)] == [2]
        assert study.results().states == {"fail": 1, "pruned": 1, "complete": 1}
        assert [result.number for result in study.results().complete] == [2]


def test_a_suspended_trial_can_be_resumed_any_number_of_times(tmp_path):
    values = []
    for _ in range(5):
        with open_study(plan(tmp_path), fresh=False) as study:
            trial = study.take()
            values.append((trial.number, trial.values))
            trial.suspend()
    assert values == [(0, {"learning_rate": 0.5, "num_epochs": None})] * 5


def test_a_trial_whose_process_was_killed_is_resumed(tmp_path):
    with open_study(plan(tmp_path), fresh=False) as study:
        search(study, 1)
        with another_process(tmp_path, take_one) as (process, connection):
            taken = connection.recv()
            # While that process lives, no other one works on its trial.
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
        assert study.results().states == {"fail": 1, "running": 1}


def test_processes_share_the_trials(tmp_path):
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(another_process(tmp_path, search)) for _ in range(3)]
        tried = [trial for _, connection in others for trial in connection.recv()]
    assert sorted(number for number, _ in tried) == [0, 1, 2, 3]
    assert states(tmp_path) == {"complete": 4}


def test_a_bad_training_is_stopped_early_after_a_third_of_it(tmp_path):
    with open_study(plan(tmp_path, num_trials=9), fresh=False) as study:
        for _ in range(5):
            trial = study.take()
            # The first trials are never stopped early.
            assert all(trial.report(part, 100.0 - trial.number) for part in range(1, 11))
            trial.complete(score(100.0))
        bad = study.take()
        assert [bad.report(part, 1.0) for part in range(1, 5)] == [True, True, False, False]
        bad.prune()
        good = study.take()
        assert all(good.report(part, 99.0) for part in range(1, 11))
        # A trial that was good before is not stopped at once.
        assert good.report(11, 1.0)


def test_an_evaluation_may_be_reported_again(tmp_path, recwarn):
    for part, value in ((1, 5.0), (2, 6.0), (1, 7.0), (2, 8.0)):
        with open_study(plan(tmp_path), fresh=False) as study:
            trial = study.take()
            assert trial.report(part, value)
            trial.suspend()
    journal = (tmp_path / "tune" / "study.journal").read_text()
    assert journal.count('"intermediate_value"') == 2
    assert not recwarn


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"facts": {**FACTS, "env.env": "Acrobot-v1"}},
            "with env.env CartPole-v1, not Acrobot-v1;",
        ),
        (
            {"start": {**START, "learning_rate": 0.1}},
            "agent.learning_rate searched in 1e-05 to 0.5, from 0.5, not searched in",
        ),
        (
            {"space": {"num_epochs": SPACE["num_epochs"]}},
            "agent.learning_rate searched in 1e-05 to 0.5, from 0.5, not 0.5; choose another --run",
        ),
        (
            {"facts": {**FACTS, "agent.gamma": 0.9}},
            "holds a search with agent.gamma None, not 0.9;",
        ),
    ],
)
def test_another_search_is_refused_and_fresh_starts_it(tmp_path, changes, expected):
    with open_study(plan(tmp_path), fresh=False) as study:
        assert len(search(study, 2)) == 2
    with pytest.raises(FileError) as error, open_study(plan(tmp_path, **changes), fresh=False):
        pass
    assert expected in str(error.value)
    assert "start over with --fresh" in str(error.value)
    assert states(tmp_path) == {"complete": 2}
    with open_study(plan(tmp_path, **changes), fresh=True) as study:
        assert study.take().number == 0


def test_fresh_removes_the_runs_of_trials_and_no_other_file(tmp_path):
    with open_study(plan(tmp_path), fresh=False) as study:
        trial = study.take()
        trial.folder.path.mkdir()
        trial.folder.write_config(asdict(EnvConfig()), torch.float32)
        (trial.folder.path / "progress.csv").write_text("")
        (trial.folder.path / "notes.txt").write_text("mine")
    with open_study(plan(tmp_path), fresh=True) as study:
        folder = study.take().folder
    assert [file.name for file in folder.path.iterdir()] == ["notes.txt"]


def test_fresh_is_refused_while_another_process_searches(tmp_path):
    with another_process(tmp_path, take_one) as (_, connection):
        assert connection.recv()[0] == 0
        with (
            pytest.raises(TrainingError, match="another process searches in"),
            open_study(plan(tmp_path), fresh=True),
        ):
            pass
        assert states(tmp_path) == {"running": 1}


def test_a_folder_that_is_a_file_or_a_run_is_refused(tmp_path):
    (tmp_path / "tune").write_text("")
    with pytest.raises(TrainingError, match="is a file"), open_study(plan(tmp_path), fresh=False):
        pass
    (tmp_path / "tune").unlink()
    (tmp_path / "tune").mkdir()
    RunFolder(tmp_path / "tune").write_config({}, torch.float32)
    for fresh in (False, True):
        with (
            pytest.raises(TrainingError, match="holds a run"),
            open_study(plan(tmp_path), fresh=fresh),
        ):
            pass
    assert [file.name for file in (tmp_path / "tune").iterdir()] == ["config.json"]


def test_a_full_disk_ends_a_search_that_can_be_resumed(tmp_path):
    with another_process(tmp_path, complete_without_a_disk) as (_, connection):
        message = connection.recv()
    assert "could not be written (File too large)" in message
    assert "the same command resumes the search" in message
    with open_study(plan(tmp_path), fresh=False) as study:
        assert [number for number, _ in search(study)] == [0, 1, 2, 3]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FileError, match="could not be written"),
        open_study(plan(tmp_path / "file"), fresh=False),
    ):
        pass


def test_an_incomplete_line_of_a_process_that_died_is_removed(tmp_path):
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
        lambda text: text.replace('"starts":1', '"starts":"x"'),
        lambda text: text.replace('"starts":1', '"starts":-9'),
        lambda text: text + "[" * 10**5 + "]" * 10**5 + "\n",
    ],
)
def test_a_damaged_journal_is_named_and_fresh_starts_over(tmp_path, spoil):
    with open_study(plan(tmp_path), fresh=False) as study:
        assert len(search(study, 2)) == 2
    journal = tmp_path / "tune" / "study.journal"
    before = journal.read_text()
    assert spoil(before) != before
    journal.write_text(spoil(before))
    message = "journal is damaged; start over with --fresh"
    with pytest.raises(FileError, match=message), open_study(plan(tmp_path), fresh=False):
        pass
    with open_study(replace(plan(tmp_path), num_trials=1), fresh=True) as study:
        assert len(search(study)) == 1


def test_only_a_journal_of_bounded_size_is_read_and_never_through_a_link(tmp_path):
    journal = plan(tmp_path).folder / "study.journal"
    journal.parent.mkdir()
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    for make in (
        lambda: journal.symlink_to(outside),
        lambda: os.mkfifo(journal),
        lambda: journal.touch() or os.truncate(journal, 2**32),
    ):
        make()
        with pytest.raises(FileError) as error, open_study(plan(tmp_path), fresh=False):
            pass
        assert "\n" not in str(error.value)
        journal.unlink()
    assert outside.read_bytes() == b"mine"


def test_fresh_removes_nothing_behind_a_link(tmp_path):
    outside = RunFolder(tmp_path / "outside")
    outside.path.mkdir()
    outside.config_file.write_text("{}")
    plan(tmp_path).folder.mkdir()
    (plan(tmp_path).folder / "trial-000").symlink_to(outside.path)
    with (
        pytest.raises(FileError, match="is a link to another place"),
        open_study(plan(tmp_path), fresh=True),
    ):
        pass
    assert outside.holds_run
