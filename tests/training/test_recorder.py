"""Tests of `training.recorder`."""

from __future__ import annotations

import numpy as np
import pytest

from agents.traces import Trace
from storage.recording import load_recording
from training.recorder import TrainingRecorder


def trace(seed, returned, steps=3):
    piece = {
        "actions": np.zeros(steps, int),
        "rewards": np.full(steps, returned / steps, np.float32),
        "values": np.ones(steps, np.float32),
        "probabilities": np.full((steps, 2), 0.5, np.float32),
    }
    return Trace(
        seed=seed, terminated=True, statistics={"r": returned, "l": steps}, pieces=[piece, piece]
    )


@pytest.fixture
def make(tmp_path):
    def make_recorder(env_steps=0, unit=100.0):
        return TrainingRecorder(
            tmp_path,
            env={"env": "basic"},
            game=lambda seed: {"vizdoom": "1", "map": f"{seed}"},
            gamma=0.9,
            value_unit=lambda: unit,
            interval=1000,
            env_steps=env_steps,
        )

    return make_recorder


def recorded(folder):
    found = {}
    for path in folder.glob("*.npz"):
        found[path.stem.removeprefix("training-")] = load_recording(path).episode.seed
    return found


def test_the_first_the_best_the_worst_and_others_at_intervals_are_recorded(tmp_path, make):
    recorder = make()
    recorder.take([], 100)
    assert recorded(tmp_path) == {}
    recorder.take([trace(1, 5.0), trace(2, 9.0), trace(3, -1.0)], 400)
    recorder.take([trace(4, 9.0), trace(5, 0.0)], 800)
    recorder.take([], 1200)  # No episode ended then: the next one that ends is recorded.
    recorder.take([trace(6, 2.0), trace(7, 3.0)], 1600)
    recorder.take([trace(8, 2.0)], 1900)
    recorder.take([trace(9, 10.0)], 2400)
    recorder.save()
    assert recorded(tmp_path) == {
        "first": 1,
        "best": 9,
        "worst": 3,
        "0000001600": 7,
        "0000002400": 9,
    }


def test_a_recording_has_the_actions_values_and_probabilities_of_the_policy(tmp_path, make):
    make().take([trace(1, 6.0)], 400)
    recording = load_recording(tmp_path / "training-first.npz")
    episode = recording.episode
    assert (recording.env, recording.game) == (
        {"env": "basic"},
        {"vizdoom": "1", "map": f"{recording.episode.seed}"},
    )
    assert (episode.gamma, episode.greedy, episode.terminated) == (0.9, False, True)
    assert episode.rewards.tolist() == [2.0] * 6
    assert episode.values.tolist() == [100.0] * 6  # in native rewards
    assert episode.probabilities.shape == (6, 2)


def test_a_run_that_resumes_keeps_the_best_and_the_worst_episode(tmp_path, make):
    recorder = make()
    recorder.take([trace(1, 5.0)], 400)
    recorder.save()
    later = make(env_steps=1500)
    later.take([trace(2, 4.0)], 1600)
    later.take([trace(3, 6.0)], 2000)
    later.save()
    assert recorded(tmp_path) == {"first": 1, "best": 3, "worst": 2, "0000002000": 3}
