"""Tests of `evaluation.replay.live`: windows are tested on an X server, if one is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.errors import EvaluationError
from evaluation.replay.live import window

ROOT = Path(__file__).parent.parent.parent


@contextlib.contextmanager
def x_server():
    """Start an X server without a screen, and return its display."""
    xvfb = shutil.which("Xvfb")
    if xvfb is None:
        pytest.skip("Xvfb is not installed")
    reading, writing = os.pipe()
    command = [xvfb, "-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        with os.fdopen(reading) as number:
            yield f":{number.readline().strip()}"
        server.terminate()


def test_a_display_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":64999")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(
        EvaluationError, match="no window can be opened on this display; add --terminal"
    ):
        window().__enter__()


def test_an_episode_is_shown_in_a_window():
    command = [sys.executable, "evaluate.py", "watch", "zoo/basic", "--episodes", "1"]
    with x_server() as display:
        done = subprocess.run(
            [*command, "--seed", "3", "--speed", "100"],
            cwd=ROOT,
            env=os.environ | {"DISPLAY": display},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    assert done.stdout.startswith("zoo/basic: episode with seed 3: return ")
    assert done.stderr == ""
