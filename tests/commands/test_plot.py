"""Tests of `commands.plot`."""

from __future__ import annotations

import io

import pytest
from PIL import Image

import evaluate
from storage.files import write_json
from tests.evaluation.policies import save_curve
from tests.programs import refused, succeed


def save(folder, env="CartPole-v1", agent="ppo", seed=0, curve=((10, 1), (90, 5)), **changes):
    """Write what `plot` reads of a run."""
    config = {"env": {"env": env}, "perception": {}, "agent": {"name": agent}, "objectives": {}}
    write_json(folder / "config.json", {"config": {**config, "seed": seed, **changes}})
    save_curve(folder / "progress.csv", curve)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two seeds of one agent, another agent, and a run in another environment."""
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        save(tmp_path / f"runs/ppo-seed{seed}", seed=seed)
    save(tmp_path / "runs/a2c-seed0", agent="a2c")
    save(tmp_path / "runs/other", env="basic")
    return tmp_path


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")]
)
def test_curves_are_drawn_for_each_environment(runs, capsys, suffix, start):
    succeed(evaluate, "plot", "runs/*", "--out", f"x{suffix}")
    printed = capsys.readouterr().out.splitlines()
    assert sorted(printed) == [
        f"x-CartPole-v1{suffix}: CartPole-v1, runs/a2c-seed0, runs/ppo",
        f"x-basic{suffix}: basic, runs/other",
    ]
    for env in ("basic", "CartPole-v1"):
        assert (runs / f"x-{env}{suffix}").read_bytes().startswith(start)


def test_a_picture_of_one_environment_has_the_given_name(runs, capsys):
    succeed(evaluate, "plot", "runs/ppo-seed0", "runs/ppo-seed1", "--labels", "mine")
    assert capsys.readouterr().out == "curves.png: CartPole-v1, mine = runs/ppo\n"
    with Image.open(io.BytesIO((runs / "curves.png").read_bytes())) as image:
        assert image.width == 1440


def test_bad_options_get_one_line(runs, capsys):
    (runs / "empty").mkdir()
    for arguments, expected in (
        (["nowhere"], "nowhere is not a run folder"),
        (["empty"], "empty is not a run folder: it has no config.json"),
        (["none-*"], "none-* matches no run"),
        (["runs/other", "--tag", "x"], "runs/other has no curve of x; choose --tag from rollout/"),
        (["runs/other", "--out", "x.gif"], "--out x.gif: a picture is a .png, .pdf or .svg file"),
        (["runs/other", "--labels", "a", "b"], "name each of the 1 entries (runs/other), got 2"),
        (["runs/other", "runs/other"], "runs/other is named twice"),
    ):
        assert expected in refused(capsys, evaluate, "plot", *arguments), arguments
    (runs / "runs/other/progress.csv").unlink()
    assert "it has no progress.csv yet" in refused(capsys, evaluate, "plot", "runs/other")
