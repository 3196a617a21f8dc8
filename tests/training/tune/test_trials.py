"""Tests of `training.tune.trials`; whole searches are in `tests/test_tune.py`."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from agents.search_space import Choice, Range
from tests.training.tune.plans import plan, score
from training.errors import TrainingError
from training.tune.search import SearchResults, TrialResult, open_study
from training.tune.trials import TuningConfig, choose_space, print_results, tune

SPACE = {"learning_rate": Range(1e-4, 1e-2, log=True), "gamma": Choice((0.9, 0.99))}
START = {"learning_rate": 0.1, "gamma": 0.99, "seed": 3}


def test_a_field_that_is_given_is_not_searched_unless_it_is_named():
    wide = Range(1e-4, 0.1, log=True)
    assert choose_space(SPACE, START, {"seed"}, ()) == {**SPACE, "learning_rate": wide}
    assert choose_space(SPACE, START, {"learning_rate"}, ()) == {"gamma": SPACE["gamma"]}
    named = ("learning-rate",)
    assert choose_space(SPACE, START, {"learning_rate"}, named) == {"learning_rate": wide}


def test_a_field_that_cannot_be_searched_is_refused():
    with pytest.raises(TrainingError, match="--search seed: choose from learning_rate, gamma"):
        choose_space(SPACE, START, set(), ("gamma", "seed"))
    with pytest.raises(TrainingError, match="every hyper-parameter is given as a flag; name"):
        choose_space(SPACE, START, {"learning_rate", "gamma"}, ())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tune": True, "trials": 0}, "trials must be at least 1, got 0"),
        ({"search": ("gamma",)}, "--search needs --tune"),
    ],
)
def test_a_value_out_of_range_is_refused(fields, expected):
    with pytest.raises(ValueError, match=expected):
        TuningConfig(**fields)


class BrokenError(Exception):
    """A training failed."""


def search(folder, train, signals=(), **changes):
    return tune(plan(folder, **changes), train, signals, fresh=False, failures=(BrokenError,))


def complete(folder, count, mean):
    with open_study(plan(folder, num_trials=count), fresh=False) as study:
        while trial := study.take():
            for step in range(1, 11):
                trial.report(step, mean)
            trial.complete(score(mean))


def log_evaluation(writer, step, mean):
    writer.write({"time/fps": 1.0}, {}, step - 1)
    writer.write({"time/fps": 1.0, "eval/mean_reward": mean}, {}, step)


def test_a_training_that_is_worse_than_others_is_stopped_and_not_scored(tmp_path, capsys):
    complete(tmp_path, 5, 50.0)
    steps = []

    def train(values, folder, writer):
        for step in range(10, 101, 10):
            steps.append(step)
            log_evaluation(writer, step, 49.0)

    results = search(tmp_path, train, num_trials=6)
    assert results.states == {"complete": 5, "pruned": 1}
    assert steps == [10, 20, 30]
    assert "trial 5 is stopped early: at this point, half of the other" in capsys.readouterr().err


def test_a_training_is_not_stopped_early_at_its_end(tmp_path):
    complete(tmp_path, 5, 50.0)
    signals = []

    def train(values, folder, writer):
        log_evaluation(writer, 100, 1.0)
        signals.append(2)

    assert search(tmp_path, train, signals, num_trials=6).states == {"complete": 5, "running": 1}


def test_failed_trials_are_skipped_until_three_fail_in_a_row(tmp_path, capsys):
    complete(tmp_path, 5, 50.0)
    numbers = iter(range(10))

    def train(values, folder, writer):
        number = next(numbers)
        if number == 2:
            log_evaluation(writer, 50, 1.0)  # It is stopped early.
        raise BrokenError(f"number {number}")

    with pytest.raises(TrainingError, match="3 trials in a row failed, the last: number 5"):
        search(tmp_path, train, num_trials=10)
    assert "trial 5 failed: number 0" in capsys.readouterr().err


def test_a_signal_leaves_a_trial_unfinished_to_be_resumed(tmp_path):
    signals, tried = [], []

    def train(values, folder, writer):
        tried.append((values, folder))
        signals.append(2)

    for _ in range(2):
        assert search(tmp_path, train, signals).states == {"running": 1}
        signals.clear()
    assert tried[0] == tried[1]
    assert search(tmp_path, train, [2]).states == {"running": 1}
    assert len(tried) == 2


def printed(results):
    console = Console(file=io.StringIO(), width=80)
    print_results(console, results)
    return console.file.getvalue()


def result(number, mean):
    return TrialResult(
        number=number,
        values={"gamma": number / 10},
        mean=mean,
        ci_low=mean - 1,
        ci_high=mean + 1,
        episodes=50,
    )


def test_the_first_trial_is_shown_beside_the_best_ones():
    means = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    best_first = [result(number, means[number]) for number in (5, 4, 3, 2, 1, 0)]
    states = {"complete": 6, "fail": 1, "running": 2, "pruned": 3}
    lines = printed(SearchResults(complete=best_first, states=states))
    assert "The best trials (6 complete, 1 failed, 3 pruned, 2 unfinished)" in lines
    assert re.search(r"trial +┃ +5 ┃ +4 ┃ +3 ┃ +2 ┃ +start ┃", lines)
    assert re.search(r"mean return +│ +6\.00 │ +5\.00 │ +4\.00 │ +3\.00 │ +1\.00 │", lines)
    assert re.search(r"gamma +│ +0\.5 │ +0\.4 │ +0\.3 │ +0\.2 │ +0\.0 │", lines)
    assert "over 50 episodes that chose no weights, but the order of the trials" in lines


def test_without_a_complete_trial_their_states_are_printed():
    none = SearchResults(complete=[], states={})
    assert printed(none) == "no trial is complete yet (none was started)\n"
    running = SearchResults(complete=[], states={"running": 1, "fail": 2})
    assert printed(running) == "no trial is complete yet (2 failed, 1 unfinished)\n"
