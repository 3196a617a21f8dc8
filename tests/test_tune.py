"""Searches for hyper-parameters, as a user runs them: real trainings on CartPole."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import evaluate
import train
from agents.checkpoint import load_policy
from agents.commandline import run
from agents.run import RunFolder
from tests.envs import processes

ROOT = Path(__file__).parent.parent
TRAIN = [sys.executable, str(ROOT / "train.py")]
TUNE = ["CartPole-v1", "--tune", "--agent", "a2c", "--num-workers", "1", "--no-record"]
TINY = [*TUNE, "--num-envs", "2", "--total-env-steps", "256", "--eval-episodes", "2"]


def said(arguments):
    """Run in this process, and give what is printed."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert train.main([str(argument) for argument in arguments]) == 0
    return output.getvalue()


def refused(capsys, monkeypatch, arguments):
    """Run in this process; it must return 2 and print nothing but one line, at the end."""
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    assert run(train.main, train.USER_ERRORS) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of three trials, and what it printed at its end."""
    folder = tmp_path_factory.mktemp("tune") / "search"
    return folder, said([*TINY, "--trials", "3", "--gamma", "0.95", "--run-dir", folder])


def best_command(output):
    (line,) = re.findall(r"^train it:  python train.py (.*)$", output, re.MULTILINE)
    return shlex.split(line)


def best_trial(output):
    (line,) = re.findall(r"^score it:  python evaluate.py score (.*)$", output, re.MULTILINE)
    return Path(line)


def test_each_trial_is_a_training_of_its_own(searched):
    folder, _ = searched
    trials = [folder / f"trial-00{number}" for number in range(3)]
    assert sorted(folder.iterdir()) == [folder / "lock", folder / "study.journal", *trials]
    configs = [train.flat(RunFolder(trial).read_config()) for trial in trials]
    preset = train.read_command_line(TINY).training.learning
    assert configs[0] | train.flat(asdict(preset)) | {"gamma": 0.95} == configs[0]
    assert {config["gamma"] for config in configs} == {0.95}
    assert len({config["learning_rate"] for config in configs}) == 3
    for config in configs:
        assert not config.keys() & {"tune", "trials", "search"}


def test_the_best_trials_are_shown_with_their_hyper_parameters(searched):
    _, output = searched
    assert "The best trials (3 complete)" in output
    assert re.search(r"┃ trial .* start ┃", output)
    rows = dict(re.findall(r"│ (\w[\w ]*\w) +│ +(\S+) ", output))
    best = train.flat(RunFolder(best_trial(output)).read_config())
    space = train.AGENTS["a2c"][0].search_space.keys() - {"gamma"}
    assert space <= rows.keys()
    assert {name: rows[name] for name in space} == {name: str(best[name]) for name in space}
    assert "gamma" not in rows


def test_the_best_command_trains_the_best_policy_again(searched):
    folder, output = searched
    config = train.read_command_line(best_command(output)).training
    trial = best_trial(output)
    assert config.run_dir == folder.with_name("search-best-seed0")
    trained = train.flat(RunFolder(trial).read_config())
    again = json.loads(json.dumps(train.flat(asdict(config)), default=str))
    assert again == trained | {"run_dir": str(config.run_dir)}
    said(best_command(output))
    policies = [load_policy(run / "policy.safetensors").policy for run in (trial, config.run_dir)]
    for ours, theirs in zip(*(p.state_dict().values() for p in policies), strict=True):
        assert torch.equal(ours, theirs)


def test_a_search_that_is_over_trains_no_more_and_shows_the_same(searched):
    folder, output = searched
    before = {file: file.stat().st_mtime_ns for file in folder.glob("trial-*/*")}
    arguments = [*TINY, "--trials", "3", "--gamma", "0.95", "--run-dir", folder]
    assert said(arguments) == output[output.index("The best trials") :]
    assert {file: file.stat().st_mtime_ns for file in folder.glob("trial-*/*")} == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--gamma", "0.9"], "holds a search with gamma 0.95, not 0.9; choose another --run-dir"),
        ([], "holds a search with gamma 0.95, not searched in 0.9, 0.95, 0.98, 0.99"),
        (["--gamma", "0.95", "--total-env-steps", "99"], "with total_env_steps 256, not 99;"),
        (["--gamma", "0.95", "--search", "seed"], "--search seed: there are learning_rate, "),
        (["--autotune"], "--tune and --autotune exclude each other"),
        (["--trials", "0"], "trials must be at least 1, got 0"),
    ],
)
def test_another_search_is_refused(searched, capsys, monkeypatch, options, expected):
    (line,) = refused(capsys, monkeypatch, [*TINY, "--run-dir", searched[0], *options])
    assert expected in line


def test_a_missing_extra_is_named_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    (line,) = refused(capsys, monkeypatch, [*TINY, "--run-dir", tmp_path / "search"])
    assert line == 'error: optuna is not installed; pip install -e ".[tune]"'
    assert list(tmp_path.iterdir()) == []


def test_by_default_a_search_lies_beside_the_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = said([*TINY, "--trials", "1"])
    assert best_trial(output) == Path("runs/CartPole-v1/a2c-tune/trial-000")
    best = train.read_command_line(best_command(output)).training
    assert best.run_dir == Path("runs/CartPole-v1/a2c-tune-best-seed0")


ENTROPY_ONLY = ["--search", "entropy-coef", "--entropy-coef", "1e30"]


def test_a_setting_that_cannot_be_learned_with_fails_and_others_are_tried(tmp_path, capfd):
    output = said([*TINY, "--trials", "2", *ENTROPY_ONLY, "--run-dir", tmp_path / "search"])
    assert re.search(r"\(2 complete, \d failed\)", output)
    assert "trial 0 failed: the gradients are not finite, in 5 updates" in capfd.readouterr().err


def test_where_every_trial_fails_the_search_ends(tmp_path, capsys, monkeypatch):
    options = ["--search", "gamma", "--entropy-coef", "1e30", "--run-dir", tmp_path / "search"]
    *_, line = refused(capsys, monkeypatch, [*TINY, *options])
    assert line.startswith(
        "error: 3 trials in a row failed, the last: the gradients are not finite"
    )


def start(arguments):
    return subprocess.Popen(
        [*TRAIN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def wait_for(pattern, folder, seconds=120):
    assert processes.wait_until(lambda: bool(list(folder.glob(pattern))), seconds)


@pytest.mark.slow
def test_a_search_goes_on_after_sigkill_and_after_a_signal(tmp_path, capfd):
    """In the middle of its only trial, which is the same one from its beginning to its end."""
    folder = tmp_path / "search"
    arguments = [*TUNE, "--total-env-steps", "8000", "--eval-every", "8000", "--trials", "1"]
    arguments += ["--eval-episodes", "2", "--checkpoint-every-s", "0.1", "--run-dir", folder]
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        for file in folder.glob("trial-000/progress.csv"):
            file.unlink()
        with start(arguments) as process:
            wait_for("trial-000/progress.csv", folder)
            wait_for("trial-000/checkpoint/*.safetensors", folder)
            process.send_signal(number)
            output = process.communicate(timeout=60)[0]
            assert process.returncode == status
    assert "going on at" in output
    assert "no trial is complete yet (1 under way)" in output
    assert "Traceback" not in output
    assert "The best trials (1 complete)" in said(arguments)
    errors = capfd.readouterr().err
    assert "going on at" in errors
    assert errors.count("trial 0: ") == 2  # that it goes on, and its score


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_search_that_is_killed_half_way_solves_cartpole_from_a_bad_start(tmp_path):
    folder = tmp_path / "search"
    arguments = [*TUNE, "--total-env-steps", "30000", "--trials", "12", "--run-dir", folder]
    with start(arguments) as process:
        lines = iter(process.stdout)
        assert any("trial 6: " in line for line in lines)
        assert any(" env steps · evaluation " in line for line in lines)
        process.kill()
    output = said(arguments)
    assert "trial-006" in os.listdir(folder)
    assert len(list(folder.glob("trial-*"))) == 12
    for run_dir, solved in ((folder / "trial-000", False), (best_trial(output), True)):
        assert evaluate.main(["score", str(run_dir)]) == 0
        held_out = json.loads((run_dir / "evaluation.json").read_text())
        assert held_out["protocol"]["episodes"] == 100
        assert (held_out["scores"]["sampled"]["mean"] >= 475) is solved
