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
from pathlib import Path

import pytest
import torch

import evaluate
import train
from agents import AGENTS
from commands.commandline import run
from storage.policy_file import load_policy
from storage.run_folder import RunFolder
from tests.envs import processes
from training.config import dotted

ROOT = Path(__file__).parent.parent
TRAIN = [sys.executable, str(ROOT / "train.py")]
TUNE = ["CartPole-v1", "--tune", "--agent", "a2c", "--num-workers", "1", "--no-record"]
TINY = [*TUNE, "--num-envs", "2", "--total-env-steps", "128", "--eval-every", "128"]
TINY += ["--eval-episodes", "1"]


def printed(arguments):
    """Run in this process, and return what is printed."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert train.main([str(argument) for argument in arguments]) == 0
    return output.getvalue()


def refused(capsys, monkeypatch, arguments):
    """Run in this process, which must fail; return the lines on stderr."""
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    assert run(train.main) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of two trials, and what it printed."""
    folder = tmp_path_factory.mktemp("tune") / "search"
    return folder, printed([*TINY, "--trials", "2", "--gamma", "0.95", "--run-dir", folder])


def config_of(run_dir):
    """Return the configuration of a run, by dotted name."""
    return dotted(RunFolder(run_dir).read_config())


def best_command(output):
    (line,) = re.findall(r"^train it:  python train.py (.*)$", output, re.MULTILINE)
    return shlex.split(line)


def best_trial(output):
    (line,) = re.findall(r"^score it:  python evaluate.py score (.*)$", output, re.MULTILINE)
    return Path(line)


def test_each_trial_is_a_training_with_its_own_run_folder(searched):
    folder, _ = searched
    trials = [folder / f"trial-00{number}" for number in range(2)]
    assert sorted(folder.iterdir()) == [folder / "lock", folder / "study.journal", *trials]
    configs = [config_of(trial) for trial in trials]
    preset = dotted(train.read_command_line(TINY).training.as_dict())
    expected = {name: value for name, value in preset.items() if name.startswith("agent.")}
    expected["agent.gamma"] = 0.95
    assert {name: configs[0][name] for name in expected} == expected
    assert {config["agent.gamma"] for config in configs} == {0.95}
    assert len({config["agent.learning_rate"] for config in configs}) == 2
    for config in configs:
        assert not config.keys() & {"tune", "trials", "search"}


def test_the_best_trials_are_shown_with_their_hyper_parameters(searched):
    _, output = searched
    assert "The best trials (2 complete)" in output
    assert re.search(r"┃ trial .* start ┃", output)
    rows = dict(re.findall(r"│ (\w[\w ]*\w) +│ +(\S+) ", output))
    best = config_of(best_trial(output))
    space = AGENTS["a2c"][0].search_space.keys() - {"gamma"}
    assert space <= rows.keys()
    assert {name: rows[name] for name in space} == {n: str(best[f"agent.{n}"]) for n in space}
    assert "gamma" not in rows


def test_the_best_command_trains_the_best_policy_again(searched):
    folder, output = searched
    config = train.read_command_line(best_command(output)).training
    trial = best_trial(output)
    assert config.run_dir == folder.with_name("search-best-seed0")
    assert dotted(config.as_dict()) == config_of(trial) | {"run_dir": str(config.run_dir)}
    printed(best_command(output))
    policies = [load_policy(run / "policy.safetensors").policy for run in (trial, config.run_dir)]
    for first, second in zip(*(p.state_dict().values() for p in policies), strict=True):
        assert torch.equal(first, second)


def test_a_finished_search_trains_nothing_and_shows_the_same_table(searched):
    folder, output = searched
    before = {file: file.stat().st_mtime_ns for file in folder.glob("trial-*/*")}
    arguments = [*TINY, "--trials", "2", "--gamma", "0.95", "--run-dir", folder]
    assert printed(arguments) == output[output.index("The best trials") :]
    assert {file: file.stat().st_mtime_ns for file in folder.glob("trial-*/*")} == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--gamma", "0.9"], "a search with agent.gamma 0.95, not 0.9; choose another --run-dir"),
        ([], "a search with agent.gamma 0.95, not searched in 0.9, 0.95, 0.98, 0.99"),
        (["--gamma", "0.95", "--total-env-steps", "99"], "with total_env_steps 128, not 99;"),
        (["--gamma", "0.95", "--search", "seed"], "--search seed: choose from learning_rate, "),
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


def test_the_default_folder_of_a_search_is_beside_the_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = printed([*TINY, "--trials", "1"])
    assert best_trial(output) == Path("runs/CartPole-v1/a2c-tune/trial-000")
    best = train.read_command_line(best_command(output)).training
    assert best.run_dir == Path("runs/CartPole-v1/a2c-tune-best-seed0")


ENTROPY_ONLY = ["--search", "entropy-coef", "--entropy-coef", "1e30"]


@pytest.mark.slow
def test_a_trial_whose_training_fails_is_replaced_by_others(tmp_path, capfd):
    output = printed([*TINY, "--trials", "1", *ENTROPY_ONLY, "--run-dir", tmp_path / "search"])
    assert re.search(r"\(1 complete, \d failed\)", " ".join(output.split()))
    assert "trial 0 failed: the gradients are not finite, in 5 updates" in capfd.readouterr().err


def test_a_search_ends_if_every_trial_fails(tmp_path, capsys, monkeypatch):
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
def test_a_search_resumes_after_sigkill_and_after_a_signal(tmp_path, capfd):
    """Both interrupt the search during its only trial, which is resumed each time."""
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
    assert "resuming at" in output
    assert "no trial is complete yet (1 unfinished)" in output
    assert "Traceback" not in output
    assert "The best trials (1 complete)" in printed(arguments)
    errors = capfd.readouterr().err
    assert "resuming at" in errors
    assert errors.count("trial 0: ") == 2  # When it resumes, and with its score.


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_search_that_was_killed_solves_cartpole_from_bad_start_values(tmp_path):
    folder = tmp_path / "search"
    arguments = [*TUNE, "--total-env-steps", "30000", "--trials", "12", "--run-dir", folder]
    with start(arguments) as process:
        lines = iter(process.stdout)
        assert any("trial 6: " in line for line in lines)
        assert any(" env steps · evaluation " in line for line in lines)
        process.kill()
    output = printed(arguments)
    assert "trial-006" in os.listdir(folder)
    assert len(list(folder.glob("trial-*"))) == 12
    for run_dir, solved in ((folder / "trial-000", False), (best_trial(output), True)):
        assert evaluate.main(["score", str(run_dir)]) == 0
        held_out = json.loads((run_dir / "evaluation.json").read_text())
        assert held_out["protocol"]["episodes"] == 100
        assert (held_out["scores"]["sampled"]["mean"] >= 475) is solved
