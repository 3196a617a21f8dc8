"""Tests of `commands.watch`."""

from __future__ import annotations

import os

import pytest

import evaluate
from evaluation.replay import terminal
from tests.programs import refused, succeed


@pytest.fixture
def _terminal(monkeypatch):
    """The output is a terminal of 80 columns and 24 lines."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    monkeypatch.setattr(terminal.os, "get_terminal_size", lambda: os.terminal_size((80, 24)))


def test_without_a_terminal_and_a_display_nothing_is_written(doom_run, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for options in ((), ("--terminal",)):
        line = refused(capsys, evaluate, "watch", doom_run, *options)
        assert f"there is neither; write a video: python evaluate.py replay {doom_run}" in line


@pytest.mark.usefixtures("_terminal")
def test_an_episode_is_shown_in_the_terminal(doom_run, capsys):
    options = ["--episodes", 1, "--seed", 7, "--speed", 1000, "--terminal"]
    succeed(evaluate, "watch", doom_run, *options)
    shown = capsys.readouterr().out
    assert "\u2580" in shown
    for label in ("return  ", "step    ", "value   "):
        assert label in shown
    assert "episode with seed 7: return" in shown


@pytest.mark.usefixtures("_terminal")
def test_two_policies_are_shown_beside_each_other(cartpole_run, capsys):
    against = cartpole_run / "policy.safetensors"
    options = ["--episodes", 2, "--seed", 7, "--speed", 1000, "--terminal", "--no-overlay"]
    succeed(evaluate, "watch", cartpole_run, "--against", against, *options)
    shown = capsys.readouterr().out
    for name in (cartpole_run, against):
        for seed in (7, 8):
            assert f"{name}: episode with seed {seed}: return" in shown


def test_bad_options_get_one_line(capsys, cartpole_run):
    for arguments, expected in (
        (["--speed", "0"], "speed must be greater than 0, got 0.0"),
        (["--seed", "-1"], "seed must be between 0 and 2^29 - 1, got -1"),
        (["--episodes", "0"], "episodes must be at least 1, got 0"),
    ):
        assert expected in refused(capsys, evaluate, "watch", cartpole_run, *arguments)
