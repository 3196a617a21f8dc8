"""Tests of `commands.gallery`."""

from __future__ import annotations

import evaluate
from tests.programs import refused, succeed


def test_a_run_alone_shows_how_it_learned(cartpole_run, tmp_path, capsys):
    out = tmp_path / "page.html"
    succeed(evaluate, "gallery", cartpole_run, "--out", out, "--size", "80x60")
    content = out.read_text()
    assert "how it learned" in content
    for caption in ("first episode of the training", "env steps", "best episode of the training"):
        assert caption in content
    assert "http://" not in content.replace("http://www.w3.org", "")
    assert capsys.readouterr().out.startswith(f"{out}: ")


def test_several_policies_are_shown_side_by_side(cartpole_run, tmp_path, capsys):
    out = tmp_path / "page.html"
    policy = cartpole_run / "policy.safetensors"
    succeed(evaluate, "gallery", cartpole_run, policy, "--out", out, "--size", "80x60")
    assert "2 policies" in out.read_text()
    assert f"{out}: 2 episodes, " in capsys.readouterr().out


def test_bad_options_get_one_line(capsys, cartpole_run, tmp_path):
    for arguments, expected in (
        ([cartpole_run, "--out", "x.mp4"], "--out x.mp4: a page is an .html file"),
        ([cartpole_run, "--size", "3x3"], "--size 3x3: give an even width and height"),
        ([tmp_path], "holds no policy.safetensors"),
        ([tmp_path / "*"], "matches no run folder and no policy file"),
    ):
        assert expected in refused(capsys, evaluate, "gallery", *arguments), arguments
