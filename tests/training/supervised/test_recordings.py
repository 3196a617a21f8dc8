"""Tests of `training.supervised.recordings`, with episodes of real Doom."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace

import numpy as np
import pytest

from agents import RandomPlayer
from envs import DoomEnv, EnvConfig, SharedVectorEnv
from envs.fingerprint import fingerprint
from evaluation.protocol import Protocol, play
from evaluation.replay.recorded import DivergedError
from storage.files import FileError
from storage.recording import Recording, load_recording, save_recording
from training.supervised.clips import PLAYERS, ClipsConfig, collect_clips
from training.supervised.recordings import recordings_of

PLAYED = EnvConfig(env="health_gathering", height=30, width=40, variables=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run folder with recorded episodes of three evaluations and of a score."""
    run = tmp_path_factory.mktemp("run")
    (run / "episodes").mkdir()
    with contextlib.closing(SharedVectorEnv(PLAYED, 2)) as envs:
        player = RandomPlayer(envs.single_action_space)
        episodes = play(player, envs, Protocol(episodes=8, seed=0, num_envs=2))
    game = fingerprint(PLAYED.env)
    for i, name in enumerate(
        ["evaluation-{:010d}-{:03d}".format(*pair) for pair in ((100, 0), (100, 1), (150, 0))]
        + ["evaluation-{:010d}-{:03d}".format(*pair) for pair in ((200, 0), (200, 1))]
        + [f"score-sampled-{n:09d}" for n in range(3)]
        + ["training-first"]
    ):
        recording = Recording(episode=episodes[i % 8], env=asdict(PLAYED), game=game)
        save_recording(run / "episodes" / f"{name}.npz", recording)
    return run


def test_the_time_of_an_evaluation_tells_the_player(run):
    found = recordings_of([run], ["health_gathering"])["health_gathering"]
    assert {kind: len(each) for kind, each in found.episodes.items()} == {
        "half-trained": 2,
        "trained": 5,
    }
    parts = [
        {p.seed for kind in PLAYERS[1:] for p in _played(found, kind, part)} for part in range(2)
    ]
    assert not parts[0] & parts[1]


def _played(found, kind, part):
    try:
        return list(found.play(kind, part, (0.5, 0.5)))
    except FileError:  # Seven episodes may not be enough for each.
        return []


def test_clips_show_what_was_recorded_at_another_size(run, monkeypatch):
    """The oracle is an environment of that size, in which the recorded actions are taken again."""
    monkeypatch.setattr("training.supervised.clips._SHARES", {"train": 1.0})
    size = {"height": 120, "width": 200, "observation": "gray"}
    config = ClipsConfig(clips=6, scenarios=("health_gathering",), runs=(run,), **size)
    clips = collect_clips(config)
    assert set(clips.player.tolist()) == {0, 1, 2}
    assert clips.frames.shape == (6, 8, 120, 200, 1)
    chosen = int(np.flatnonzero(clips.player == 2)[0])
    files = [load_recording(file) for file in sorted((run / "episodes").glob("*.npz"))]
    actions = next(f.episode.actions for f in files if f.episode.seed == clips.seed[chosen])
    env = DoomEnv(replace(PLAYED, **size, variables=False))
    with contextlib.closing(env):
        screens = [env.reset(seed=int(clips.seed[chosen]))[0]]
        screens += [env.step(action)[0] for action in actions[:40]]
        pressed = [env._actions.buttons(action) for action in actions]
    clip = clips.frames[chosen]
    start = next(i for i, screen in enumerate(screens) if (screen == clip[0]).all())
    np.testing.assert_array_equal(screens[start : start + 8], clip)
    np.testing.assert_array_equal(clips.buttons[chosen][1:], np.float32(pressed[start : start + 7]))


def test_a_recording_that_differs_is_refused(run, tmp_path):
    (tmp_path / "episodes").mkdir()
    for file in (run / "episodes").glob("score-*.npz"):
        recording = load_recording(file)
        episode = replace(recording.episode, rewards=recording.episode.rewards + 1)
        save_recording(tmp_path / "episodes" / file.name, replace(recording, episode=episode))
    found = recordings_of([tmp_path], ["health_gathering"])["health_gathering"]
    played = next(found.play("trained", 0, (1.0,)))
    with pytest.raises(DivergedError, match="differs from the recording: the reward of env step 0"):
        played.check(0, 1.0)


def test_what_is_missing_is_one_line(run, tmp_path):
    with pytest.raises(FileError, match="has no recorded episodes in"):
        recordings_of([tmp_path], ["health_gathering"])
    with pytest.raises(FileError, match="none of --runs has recorded episodes of basic"):
        recordings_of([run], ["basic"])
    found = recordings_of([run], ["health_gathering"])["health_gathering"]
    with pytest.raises(FileError, match="too few recorded episodes of a random player"):
        next(found.play("random", 0, (1.0,)))
