"""Tests of `commands.suite`, with trainings of a second."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import evaluate
import train
from commands import suite
from commands.commandline import UsageError
from commands.suite import SuiteOptions, train_all
from commands.suite import trained as trained_now
from envs import SCENARIOS, EnvError
from evaluation.compare import MODES
from perception.lookup import UnknownNameError
from storage.policy_file import load_policy
from tests.envs import processes
from tests.evaluation.policies import save_run
from tests.programs import refused

ROOT = Path(__file__).parents[2]
FIRST = ("CartPole-v1", "ppo", 0)
PLAN = {"scenarios": ("CartPole-v1",), "agents": ("ppo",), "seeds": (0,)}
TINY = ["--total-env-steps", "64", "--episodes", "4", "--num-envs", "2"]


def run_suite(folder, *options):
    return evaluate.main(["suite", "CartPole-v1", "--out", str(folder / "out"), *TINY, *options])


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def trained(folder):
    """Return the content of each training's policy."""
    files = sorted((folder / "out").glob("*/*/policy.safetensors"))
    return {file.parent.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


@pytest.fixture
def in_process(monkeypatch):
    """Train in this process, and return the arguments of each training."""
    trainings = []

    def train_here(arguments):
        trainings.append(arguments)
        with torch.enable_grad():  # As in a process of its own; the commands need no gradients.
            return train.main([*arguments, "--eval-episodes", "1", "--num-workers", "1"])

    monkeypatch.setattr(suite, "train_alone", train_here)
    return trainings


def test_a_suite_trains_compares_and_resumes(tmp_path, capfd, in_process):
    table = tmp_path / "table.json"
    plan = SuiteOptions(**PLAN, out=tmp_path / "out", total_env_steps=64)
    assert train.main(plan.train_arguments("CartPole-v1", "a2c", 0)) == 0
    first = trained(tmp_path)
    assert first.keys() == {"a2c-seed0"}
    capfd.readouterr()
    # What is trained is not trained again; what is named twice is trained once.
    options = ("--agents", "a2c", "--seeds", "0", "1", "1", "--json", str(table))
    assert run_suite(tmp_path, *options) == 0
    said = capfd.readouterr().out
    assert said.count("$ python train.py") == len(in_process) == 1
    assert f"{tmp_path / 'out' / 'CartPole-v1' / 'a2c-seed0'} is trained already" in said
    now = trained(tmp_path)
    assert now.keys() == {"a2c-seed0", "a2c-seed1"}
    assert now.items() >= first.items()
    (comparison,) = json.loads(table.read_text())
    home = tmp_path / "out" / "CartPole-v1"
    assert {(r["entry"], r["mode"], len(r["returns"])) for r in comparison["results"]} == {
        *((str(home / "a2c"), mode, 2) for mode in MODES),
        ("random", "", 1),
    }
    table = (tmp_path / "out" / "compare" / "table.md").read_text()
    assert "| CartPole-v1 | sampled |" in table
    assert re.search(r"\| a2c \| 1 \|.*\| 64 \| 64 \| 64 \|", table)
    folder = tmp_path / "out" / "compare" / "CartPole-v1"
    assert (folder / "compare.md").is_file()
    assert json.loads((folder / "compare.json").read_text()) == comparison


def test_all_bundled_scenarios_are_trained_with_five_seeds():
    trainings = suite.plan(SuiteOptions())
    assert len(trainings) == 5 * len(SCENARIOS)
    assert [env for env, _, seed, _ in trainings if seed == 0] == list(SCENARIOS)
    assert [seed for _, _, seed, _ in trainings] == sorted(seed for _, _, seed, _ in trainings)


def test_what_is_trained_is_compared_without_training(tmp_path, capfd):
    options = SuiteOptions(**{**PLAN, "seeds": (0, 1)}, out=tmp_path, train=False)
    with pytest.raises(UsageError, match=f"nothing is trained in {tmp_path}; leave out --no-train"):
        trained_now(options)
    folders = [options.run_dir("CartPole-v1", "ppo", seed) for seed in (0, 1)]
    save_run(folders[1], seed=1)
    assert trained_now(options) == [folders[1]]
    assert f"not trained, and left out: {folders[0]}\n" in capfd.readouterr().out


HOLDING = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def test_what_another_process_trains_is_left_to_it(tmp_path, capfd, monkeypatch):
    options = SuiteOptions(**{**PLAN, "seeds": (0, 1, 2)}, out=tmp_path)
    folders = [options.run_dir("CartPole-v1", "ppo", seed) for seed in options.seeds]
    (tmp_path / "lock").touch()
    number = suite._lock_number(tmp_path, folders[0])
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "lock"), str(number)]
    trained = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"

        def train_here(arguments):
            trained.append(Path(arguments[arguments.index("--run-dir") + 1]))
            if trained[-1] == folders[2]:
                other.kill()  # However it ends, its training is resumed.
            return 0

        monkeypatch.setattr(suite, "train_alone", train_here)
        assert train_all(options) == folders
    assert trained == [folders[1], folders[2], folders[0]]
    assert "waiting for trainings of other processes: 1\n" in capfd.readouterr().out


def test_every_combination_of_swept_values_is_a_training():
    plan = SuiteOptions(**PLAN, sweep=("memory=none,gru", "--hidden-sizes=8 8", "overlap=false"))
    assert len(plan.settings) == 2
    for setting, memory in zip(plan.settings, ("none", "gru"), strict=True):
        config = train.read_command_line(plan.train_arguments(*FIRST, setting)).training
        assert config.perception.memory_name == memory
        assert config.perception.vectors.hidden_sizes == (8, 8)
        assert not config.overlap
        name = f"ppo-memory={memory}-hidden-sizes=8_8-overlap=false-seed0"
        assert config.run_dir == Path("runs/suite/CartPole-v1") / name


@pytest.mark.slow
def test_flags_are_swept(tmp_path, in_process):
    table = tmp_path / "table.json"
    options = ("--seeds", "0", "--sweep", "memory=none,gru", "hidden-sizes=8 8")
    assert run_suite(tmp_path, *options, "--json", str(table)) == 0
    home = tmp_path / "out" / "CartPole-v1"
    (comparison,) = json.loads(table.read_text())
    assert {result["entry"] for result in comparison["results"]} == {
        "random",
        *(str(home / f"ppo-memory={memory}-hidden-sizes=8_8-seed0") for memory in ("none", "gru")),
    }
    configs = [load_policy(file).policy.config for file in home.glob("*/policy.safetensors")]
    assert {(c.memory_name, c.vectors.hidden_sizes) for c in configs} == {
        ("none", (8, 8)),
        ("gru", (8, 8)),
    }


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        pytest.param(
            "memory=none,lstn",
            "unknown memory 'lstn'; choose from none, lstm",
            marks=pytest.mark.slow,
        ),
        pytest.param("memroy=none", "no --memroy; did you mean --memory?", marks=pytest.mark.slow),
        ("memory", "--sweep memory: give a flag and its values, as in memory=none,lstm"),
        ("memory=none,", "--sweep memory=none,: give a flag and its values"),
        ("seed=1,2", "--sweep seed=1,2: seed cannot be swept"),
        ("run_dir=a,b", "--sweep run_dir=a,b: run_dir cannot be swept"),
    ],
)
def test_a_sweep_that_train_py_does_not_accept_is_refused_at_once(
    tmp_path, capsys, sweep, expected
):
    arguments = ("CartPole-v1", "--out", tmp_path / "out", "--sweep", sweep)
    assert expected in refused(capsys, evaluate, "suite", *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        (
            {"agents": ("ppo", "dqn")},
            UnknownNameError,
            "unknown agent 'dqn'; choose from ppo, a2c",
        ),
        ({"scenarios": ("CartPole-v1", "basik")}, EnvError, "did you mean basic?"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_is_trained(
    tmp_path, capfd, changes, kind, expected
):
    with pytest.raises(kind) as error:
        train_all(SuiteOptions(**{**PLAN, **changes}, out=tmp_path))
    assert expected in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_bad_options_get_one_line(capsys):
    for arguments, expected in (
        (["basik"], "did you mean basic?"),
        (["basic", "--agents", "dqn"], "unknown agent 'dqn'; choose from ppo"),
        (["basic", "--seeds"], "seeds: name at least one"),
        (["basic", "--seeds", "-1"], "seeds must be between 0 and 2^31 - 1"),
        (["basic", "--total-env-steps", "0"], "total_env_steps must be at least 1"),
    ):
        assert expected in refused(capsys, evaluate, "suite", *arguments)


@pytest.mark.slow
def test_a_training_that_fails_ends_the_suite(tmp_path, capfd):
    (tmp_path / "CartPole-v1").mkdir()
    (tmp_path / "CartPole-v1" / "ppo-seed0").write_text("in the way")
    plan = SuiteOptions(**{**PLAN, "seeds": (0, 1)}, out=tmp_path)
    before = handlers()
    with pytest.raises(UsageError, match="training CartPole-v1 with ppo, seed 0, failed; see"):
        train_all(plan)
    assert handlers() == before
    said = capfd.readouterr()
    assert said.out.splitlines()[1:] == [
        f"$ python train.py {' '.join(plan.train_arguments(*FIRST))}"
    ]
    (line,) = said.err.splitlines()
    assert "is a file; name a folder" in line


SLOW_SIGNALS = [signal.SIGTERM, signal.SIGHUP]


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in SLOW_SIGNALS)],
)
def test_an_interrupted_training_is_saved_and_the_suite_ends(tmp_path, number):
    options = ["CartPole-v1", "--total-env-steps", "100000000", "--out", str(tmp_path)]
    command = [sys.executable, str(ROOT / "evaluate.py"), "suite", *options]
    plan = SuiteOptions(**PLAN, out=tmp_path)
    run_dir = plan.run_dir(*FIRST)
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        learning = processes.wait_until((run_dir / "progress.csv").exists, 150)
        # A terminal signals all processes, `kill` only one.
        tell = os.killpg if number == signal.SIGINT else os.kill
        tell(process.pid, number)
        try:
            said, _ = process.communicate(timeout=60)
            running = processes.command_lines(os.environ[processes.MARKER]).values()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # Nothing should be left.
    assert learning, said
    assert process.returncode == 128 + number
    assert "interrupted at" in said
    assert "Traceback" not in said
    assert not [line for line in running if str(run_dir) in line]
    assert [p for p in (run_dir / "checkpoint").iterdir() if p.suffix == ".safetensors"]
    assert not (tmp_path / "compare").exists()
    assert train.main([*plan.train_arguments(*FIRST), "--total-env-steps", "1"]) == 0


TRAINING = """
import sys
from pathlib import Path
from commands.suite import train_alone
train_alone(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_training_is_saved_and_ends_when_the_suite_is_killed(tmp_path):
    arguments = ["CartPole-v1", "--total-env-steps", "100000000", "--run-dir", str(tmp_path)]
    arguments += ["--num-envs", "2", "--num-workers", "1", "--eval-episodes", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), processes.MARKER: str(tmp_path)},
        text=True,
    ) as suite_process:
        learning = processes.wait_until((tmp_path / "progress.csv").exists, 150)
        suite_process.kill()
        _, said = suite_process.communicate(timeout=60)  # Until the training has ended too.
    running = processes.command_lines(str(tmp_path)).values()
    assert learning, said
    assert processes.wait_until(lambda: not processes.command_lines(str(tmp_path)), 5.0), running
    assert [*(tmp_path / "checkpoint").glob("*.safetensors")]
    assert "Traceback" not in said
