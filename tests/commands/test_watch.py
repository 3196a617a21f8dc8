"""Tests of `commands.watch`."""

from __future__ import annotations

import evaluate
from tests.programs import refused, succeed


def test_an_episode_is_shown_in_the_terminal(doom_run, capsys):
    options = ["--episodes", 1, "--seed", 7, "--speed", 1000, "--terminal"]
    succeed(evaluate, "watch", doom_run, *options)
    shown = capsys.readouterr().out
    assert "\u2580" in shown
    assert "episode with seed 7: return" in shown


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
