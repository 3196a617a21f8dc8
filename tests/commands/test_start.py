"""Tests of `commands.start`: how programs begin, and end before they have begun."""

import configparser
import importlib
import os
import signal
import subprocess
import sys

import pytest

from tests.envs import processes

SCRIPT = "from {module} import {function}; {function}()"


def entry_points():
    """Return the console scripts, as (module, function)."""
    config = configparser.ConfigParser()
    config.read(processes.ROOT / "setup.cfg")
    lines = config["options.entry_points"]["console_scripts"].split("\n")
    return [tuple(line.partition(" = ")[2].split(":")) for line in lines if line]


@pytest.mark.parametrize(("module", "function"), entry_points())
def test_a_console_script_runs_a_program(monkeypatch, module, function):
    ran = []
    program = importlib.import_module(function)
    monkeypatch.setattr(program, "command", lambda: ran.append(program))
    before = signal.getsignal(signal.SIGINT)
    try:
        getattr(importlib.import_module(module), function)()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ran == [program]


@pytest.mark.parametrize("command", [["train.py"], ["-c", "import commands.start as s; s.train()"]])
def test_ctrl_c_during_the_imports_is_silent(command):
    command = [str(processes.ROOT / word) if word.endswith(".py") else word for word in command]
    process = subprocess.Popen(
        [sys.executable, *command, "basic"],
        env={**os.environ, "PYTHONPATH": str(processes.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    maps = processes.PROC / str(process.pid) / "maps"
    # In the middle of the imports, the first of which is that of PyTorch.
    importing = processes.wait_until(lambda: "libtorch" in maps.read_text(), 30.0)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert importing
    assert (process.returncode, said) == (130, b"")
