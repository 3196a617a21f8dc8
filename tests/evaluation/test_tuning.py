"""Tests of `evaluation.tuning`; whole searches are in `tests/test_tune.py`."""

from __future__ import annotations

import pytest

from agents.commandline import UsageError
from agents.search import Choice, Range
from evaluation.study import open_study
from evaluation.tuning import TuningConfig, choose_space, tune
from tests.evaluation.test_study import plan, score

SPACE = {"learning_rate": Range(1e-4, 1e-2, log=True), "gamma": Choice((0.9, 0.99))}
START = {"learning_rate": 0.1, "gamma": 0.99, "seed": 3}


def test_what_is_given_is_not_searched_unless_it_is_named():
    wide = Range(1e-4, 0.1, log=True)
    assert choose_space(SPACE, START, {"seed"}, ()) == {**SPACE, "learning_rate": wide}
    assert choose_space(SPACE, START, {"learning_rate"}, ()) == {"gamma": SPACE["gamma"]}
    named = ("learning-rate",)
    assert choose_space(SPACE, START, {"learning_rate"}, named) == {"learning_rate": wide}


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(UsageError, match="--search seed: there are learning_rate, gamma"):
        choose_space(SPACE, START, set(), ("gamma", "seed"))
    with pytest.raises(UsageError, match="all hyper-parameters are given a value; name with"):
        choose_space(SPACE, START, {"learning_rate", "gamma"}, ())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tune": True, "trials": 0}, "trials must be at least 1, got 0"),
        ({"search": ("gamma",)}, "--search goes with --tune"),
    ],
)
def test_what_is_out_of_range_is_refused(fields, expected):
    with pytest.raises(ValueError, match=expected):
        TuningConfig(**fields)


class BrokenError(Exception):
    """A training could not go on."""


def search(folder, train, signals=(), **changes):
    return tune(plan(folder, **changes), train, signals, fresh=False, failures=(BrokenError,))


def complete(folder, count, mean):
    with open_study(plan(folder, num_trials=count), fresh=False) as study:
        while trial := study.take():
            for step in range(1, 11):
                trial.report(step, mean)
            trial.complete(score(mean))


def evaluate(writer, step, mean):
    writer.write({"time/fps": 1.0}, {}, step - 1)
    writer.write({"time/fps": 1.0, "eval/mean_reward": mean}, {}, step)


def test_a_training_that_is_worse_than_others_is_stopped_and_not_scored(tmp_path, capsys):
    complete(tmp_path, 5, 50.0)
    steps = []

    def train(values, folder, writer):
        for step in range(10, 101, 10):
            steps.append(step)
            evaluate(writer, step, 49.0)

    findings = search(tmp_path, train, num_trials=6)
    assert findings.states == {"complete": 5, "pruned": 1}
    assert steps == [10, 20, 30]
    assert "trial 5 is given up" in capsys.readouterr().err


def test_a_training_is_not_given_up_at_its_end(tmp_path):
    complete(tmp_path, 5, 50.0)
    signals = []

    def train(values, folder, writer):
        evaluate(writer, 100, 1.0)
        signals.append(2)

    assert search(tmp_path, train, signals, num_trials=6).states == {"complete": 5, "running": 1}


def test_trials_that_fail_are_passed_over_until_three_do_so_in_a_row(tmp_path, capsys):
    complete(tmp_path, 5, 50.0)
    numbers = iter(range(10))

    def train(values, folder, writer):
        number = next(numbers)
        if number == 2:
            evaluate(writer, 50, 1.0)  # and is given up
        raise BrokenError(f"number {number}")

    with pytest.raises(UsageError, match="3 trials in a row failed, the last: number 5"):
        search(tmp_path, train, num_trials=10)
    assert "trial 5 failed: number 0" in capsys.readouterr().err


def test_a_signal_leaves_a_trial_to_be_gone_on_with(tmp_path):
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
