"""The evaluation commands, as a user runs them; tests/commands tests each of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import evaluate
from tests.agents.files import rewrite
from tests.programs import refused, status_of

ROOT = Path(__file__).parent.parent


def test_bad_input_gets_one_line(capsys, tmp_path):
    names = (
        "score, replay, watch, compare, suite, generalise, league, plot, board, gallery, explain, "
        "compress, attack, export, push, pull"
    )
    for arguments, expected in (
        ([], f"name a command; choose from {names}"),
        (["scor", "runs"], f"python evaluate.py has no command 'scor'; choose from {names}"),
        (["score"], "python evaluate.py score needs RUN; see python evaluate.py score --help"),
        (["score", "nowhere"], "there is no run at nowhere"),
        (["score", tmp_path], "holds no policy.safetensors: it is not a run folder, or no policy"),
        (["score", "x", "--episodes", "0"], "episodes must be at least 1"),
        (["score", "x", "--episode", "5"], "score has no --episode; did you mean --episodes?"),
        (["score", "x", "--json", tmp_path], "is a folder; name a file"),
        (["score", "--episode", "x"], "has no --episode; did you mean --episodes?"),
        (["score", "x", "--deterministic"], "has no --deterministic; did you mean --greedy?"),
    ):
        assert expected in refused(capsys, evaluate, *arguments), arguments


def test_runs_below_a_folder_are_named(capsys, tmp_path):
    for seed in range(2):
        (tmp_path / f"ppo-seed{seed}").mkdir()
        (tmp_path / f"ppo-seed{seed}" / "config.json").write_text("{}")
    expected = f"it holds the runs {tmp_path}/ppo-seed0, {tmp_path}/ppo-seed1; name one"
    assert expected in refused(capsys, evaluate, "score", tmp_path)


def test_foreign_and_damaged_policies_get_one_line(capsys, tmp_path, doom_run):
    whole = (doom_run / "policy.safetensors").read_bytes()
    path = tmp_path / "policy.safetensors"
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign)
    for content, expected in (
        (whole[: len(whole) // 2], "is damaged"),
        (b"", "is damaged"),
        (b"\x80\x04garbage" * 10, "is damaged"),
        (foreign.read_bytes(), "was not written by doomgrad"),
    ):
        path.write_bytes(content)
        assert expected in refused(capsys, evaluate, "score", path)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("env", "bassc", "no environment called 'bassc'"),
        ("env", "tests.envs.toy:Echo-v0", "--trust"),
        ("width", 90, "basic"),
        ("width", 10**6, "are too large"),
        ("colour", 1, "there is no field 'colour'"),
    ],
)
def test_a_policy_of_another_environment_gets_one_line(
    capsys, tmp_path, doom_run, field, value, expected
):
    path = tmp_path / "policy.safetensors"
    shutil.copy(doom_run / "policy.safetensors", path)
    rewrite(path, lambda description: description["env"].update({field: value}))
    assert expected in refused(capsys, evaluate, "score", path)


def test_every_command_is_one_module_with_its_options():
    for options, run in evaluate.RUN.items():
        assert options.__module__ == run.__module__
        name = options.__module__.removeprefix("commands.")
        assert options.__name__ == f"{name.capitalize()}Options"
        assert run.__name__ == "run"


def test_the_real_command_reports_errors_without_a_traceback(tmp_path):
    command = [sys.executable, str(ROOT / "evaluate.py"), "score", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: there is no run at nowhere; train one with train.py\n"


def test_help_and_mistakes_need_not_wait_for_imports():
    code = """
import contextlib, io, sys, evaluate
from commands.commandline import UsageError
for words in (["--help"], ["score", "--help"], ["gallery", "--help"], ["scor"], ["plot", "--x"]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit, UsageError):
        evaluate.main(words)
slow = {"torch", "scipy", "matplotlib", "stable_baselines3", "gymnasium", "vizdoom", "cv2", "numpy"}
print(sorted(slow & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_ctrl_c_ends_a_command_with_its_status(monkeypatch):
    def interrupted(options):
        raise KeyboardInterrupt

    (kind, *_) = evaluate.RUN
    monkeypatch.setitem(evaluate.RUN, kind, interrupted)
    assert status_of(evaluate, "score", "nowhere") == 130
