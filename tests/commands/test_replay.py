"""Tests of `commands.replay`."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import av
import numpy as np
import pytest

import evaluate
import train
from commands.commandline import UsageError
from commands.replay import parse_size
from evaluation.replay import terminal
from storage.recording import load_recording, save_recording
from tests.programs import SHARED, refused, succeed


@pytest.fixture
def run(doom_run, tmp_path):
    """A copy of the shared run."""
    folder = tmp_path / "run"
    shutil.copytree(doom_run, folder)
    return folder


def test_a_video_has_every_frame_of_the_recorded_episode(run, capsys):
    succeed(evaluate, "replay", run, "--episode", "last", "--size", "320x240")
    assert "differs" not in capsys.readouterr().out
    with av.open(str(run / "replay.mp4")) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 320, 240)
        assert float(stream.average_rate) == 35
        frames = sum(1 for _ in video.decode(stream))
    newest = max((run / "episodes").glob("evaluation-*.npz"))
    episode = load_recording(newest).episode
    standstill = round(35 * 0.5)
    assert frames <= 4 * len(episode.rewards) + 1 + standstill
    assert frames > 4 * (len(episode.rewards) - 1) + standstill


def test_new_episodes_are_played_with_a_policy_file(cartpole_run, tmp_path):
    out = tmp_path / "video.mp4"
    policy = cartpole_run / "policy.safetensors"
    succeed(evaluate, "replay", policy, "--out", out, "--count", 2, "--no-overlay")
    assert out.stat().st_size > 1000


def test_a_recording_of_training_is_replayed_by_its_name(doom_run, capsys, tmp_path):
    first = load_recording(doom_run / "episodes" / "training-first.npz").episode
    out = tmp_path / "first.gif"
    succeed(evaluate, "replay", doom_run, "--episode", "training-first", "--out", out)
    assert f"{first.episode_return:,.2f}" in capsys.readouterr().out


def test_a_seed_names_the_sampled_episode(run, capsys, tmp_path):
    succeed(evaluate, "score", run, "--episodes", 3, "--num-envs", 3)
    sampled = json.loads((run / "evaluation.json").read_text())["returns"]["sampled"]
    capsys.readouterr()
    succeed(evaluate, "replay", run, "--episode", 2, "--out", tmp_path / "clip.gif")
    assert f" {sampled[2]:,.2f}" in capsys.readouterr().out.replace("\n", "")


def test_a_page_shows_two_policies_on_one_seed(doom_run, tmp_path):
    out, against = tmp_path / "page.html", doom_run / "policy.safetensors"
    options = ("--html", "--against", against, "--out", out, "--size", "160x120")
    succeed(evaluate, "replay", doom_run, "--episode", "best", *options)
    content = out.read_text()
    for words in (str(doom_run), str(against), "sampled", "move left + attack"):
        assert words in content
    assert "http://" not in content.replace("http://www.w3.org", "")
    assert not list(tmp_path.glob(".*"))


def test_a_video_shows_two_policies_side_by_side(doom_run, tmp_path):
    out, against = tmp_path / "two.mp4", doom_run / "policy.safetensors"
    options = ("--against", against, "--out", out, "--size", "160x120", "--seconds", 1)
    succeed(evaluate, "replay", doom_run, *options)
    with av.open(str(out)) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (320, 120)


def test_episodes_that_are_not_deterministic_are_shown_by_pictures_taken_of_them(
    monkeypatch, capsys, tmp_path
):
    folder = tmp_path / "run"
    assert train.main(["tests.agents.toy:Chancy-v0", *SHARED, "--run-dir", str(folder)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "pictures are taken while an episode is played" in said
    films = list((folder / "episodes").glob("*.mp4"))
    assert films
    assert all(film.with_suffix(".npz").is_file() for film in films)
    for options in (("--trust",), ("--trust", "--html")):
        succeed(evaluate, "replay", folder, *options)
    with av.open(str(folder / "replay.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 7 + round(20 * 0.5)
    monkeypatch.chdir(tmp_path)
    policy = folder / "policy.safetensors"
    succeed(evaluate, "replay", policy, "--trust", "--out", "x.mp4")
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    monkeypatch.setattr(terminal.os, "get_terminal_size", lambda: os.terminal_size((80, 24)))
    succeed(evaluate, "watch", policy, "--trust", "--episodes", 1, "--speed", 99)


def test_bad_recordings_get_one_line(capsys, run):
    path = run / "episodes" / "training-first.npz"
    recording = load_recording(path)
    episode = recording.episode
    ask = ("replay", run, "--episode", "training-first")
    far = np.full_like(episode.actions, 10**6)
    for changes, fields, expected in (
        ({}, {"game": {**recording.game, "wad": "0" * 64}}, "is not the file that was recorded"),
        ({"rewards": episode.rewards + 1}, {}, "differs from the recording"),
        ({"actions": far}, {}, "is not in Discrete(6)"),
        ({"actions": episode.actions[:, None].repeat(2, 1)}, {}, "is not in Discrete(6)"),
    ):
        save_recording(path, replace(recording, episode=replace(episode, **changes), **fields))
        assert expected in refused(capsys, evaluate, *ask)
    path.write_bytes(path.read_bytes()[:100])
    assert "is not a recorded episode, or is damaged" in refused(capsys, evaluate, *ask)
    for file in path.parent.glob("*.npz"):
        file.unlink()
    line = refused(capsys, evaluate, "replay", run)
    assert f"holds no recorded episodes; record some: python evaluate.py score {run}" in line
    assert not list(run.glob("*.mp4"))


def test_sizes_are_even():
    assert parse_size("640x480") == (640, 480)
    for text in ("641x480", "640x481", "big", "640", "0x0", "8192x480", "640x480x3", "-640x480"):
        with pytest.raises(UsageError, match=f"^--size {text}: give an even width and height, as"):
            parse_size(text)


def test_a_seed_beyond_those_of_episodes_gets_one_line(capsys, cartpole_run):
    file = cartpole_run / "best.safetensors"
    said = refused(capsys, evaluate, "replay", file, "--episode", str(10**20))
    assert "seeds of episodes are at most 2^29 - 1" in said


def test_bad_options_get_one_line(capsys, doom_run, cartpole_run):
    for arguments, expected in (
        (["--episode", "999"], "no episode '999'"),
        (["--size", "641x480"], "--size 641x480"),
        (["--against", cartpole_run], "CartPole-v1"),
        (["--html", "--out", "page.mp4"], "--out page.mp4: a page is an .html file"),
        (["--html", "--count", "2"], "a page shows one whole episode: leave out --count and --sec"),
        (["--seconds", "0"], "seconds must be greater than 0"),
        (["--seconds", "inf"], "and at most 86400, got inf"),
        (["--count", "0"], "count must be at least 1"),
        (["--out", "clip.avi"], "--out clip.avi: a video is an .mp4 or .gif file"),
    ):
        assert expected in refused(capsys, evaluate, "replay", doom_run, *arguments), arguments
