"""Tests of `storage.recording`."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.files import FileError
from storage.recording import Episode, Recording, load_recording, save_recording
from tests.storage.hostile import VALUES, leaves, put, refused_or_harmless

GAME = {"wad": "0a1b", "vizdoom": "1.3.2"}
ENV = {"env": "basic", "height": 60, "extra_channels": ["depth"], "skill": None}
KINDS = {
    "discrete": (lambda rng, t: rng.integers(8, size=t), 8),
    "multi_discrete": (lambda rng, t: rng.integers(3, size=(t, 4)), 12),
    "box": (lambda rng, t: rng.normal(size=(t, 2)).astype(np.float32), 0),
}


def make_episode(kind="discrete", steps=500):
    rng = np.random.default_rng(0)
    draw, choices = KINDS[kind]
    rewards = rng.normal(size=steps)
    return Episode(
        seed=2**30 + 7,
        greedy=True,
        actions=draw(rng, steps),
        rewards=rewards,
        values=rng.normal(size=steps).astype(np.float32),
        probabilities=rng.random((steps, choices)).astype(np.float32),
        terminated=False,
        gamma=0.99,
        statistics={"r": float(rewards.sum()), "l": float(steps), "kills": 3.0},
    )


def save(path, episode):
    save_recording(path, Recording(episode=episode, env=ENV, game=GAME))


@pytest.mark.parametrize("steps", [1, 500])
@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_episode_is_the_saved_one(tmp_path, kind, steps):
    episode = make_episode(kind, steps)
    save(tmp_path / "deep" / "e.npz", episode)
    recording = load_recording(tmp_path / "deep" / "e.npz")
    loaded = recording.episode
    assert (recording.env, recording.game) == (ENV, GAME)
    assert (loaded.seed, loaded.greedy) == (episode.seed, episode.greedy)
    assert (loaded.terminated, loaded.gamma) == (episode.terminated, episode.gamma)
    assert loaded.statistics == episode.statistics
    assert loaded.episode_return == episode.statistics["r"]
    for name in ("actions", "rewards", "values", "probabilities"):
        left, right = getattr(loaded, name), getattr(episode, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_an_episode_of_500_steps_takes_under_20_kilobytes(tmp_path):
    # Values and probabilities of 8 choices hardly compress; most environments have few rewards.
    episode = make_episode()
    rewards = np.where(episode.actions == 0, 1.0, -0.01)
    save(tmp_path / "e.npz", dataclasses.replace(episode, rewards=rewards))
    assert (tmp_path / "e.npz").stat().st_size < 20_000


def refused(path, *words):
    with pytest.raises(FileError) as error:
        load_recording(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    assert all(word in message for word in words)


def test_a_missing_episode_is_refused(tmp_path):
    refused(tmp_path / "e.npz", "there is no episode at")


@pytest.mark.parametrize("size", [0, 1, 4, 30, 100, 1000, -1, -30])
def test_a_truncated_episode_is_refused(tmp_path, size):
    path = tmp_path / "e.npz"
    save(path, make_episode())
    path.write_bytes(path.read_bytes()[:size])
    refused(path, "is not a recorded episode, or is damaged")


@pytest.mark.parametrize("content", [b"garbage", b"\x00" * 99, b"PK\x03\x04" * 9, b"\x93NUMPY\x01"])
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "e.npz"
    path.write_bytes(content)
    refused(path, "is not a recorded episode")


def test_a_lone_array_is_refused(tmp_path):
    np.save(tmp_path / "e.npy", np.zeros(3))
    refused(tmp_path / "e.npy", "is not a recorded episode")


def about_with(**changes):
    about = {"format": 1, "seed": 1, "greedy": True, "terminated": True, "gamma": 0.9}
    return json.dumps(about | {"statistics": {"r": 1.0}, "env": {}, "game": {}} | changes)


ARRAYS = {
    "actions": np.zeros(3, np.int64),
    "rewards": np.zeros(3),
    "values": np.zeros(3, np.float32),
    "probabilities": np.zeros((3, 2), np.float32),
}


def test_what_the_cases_below_change_is_valid(tmp_path):
    np.savez(tmp_path / "e.npz", about=np.array(about_with()), **ARRAYS)
    assert len(load_recording(tmp_path / "e.npz").episode.rewards) == 3


@pytest.mark.parametrize(
    "about",
    [
        "no json",
        "[]",
        '{"format": 1}',
        about_with(seed="x"),
        about_with(seed=-1),
        about_with(seed=2**31),
        about_with(seed=1.5),
        about_with(greedy="yes"),
        about_with(terminated=1),
        about_with(gamma=-1),
        about_with(gamma=float("nan")),
        about_with(statistics={}),
        about_with(statistics={"r": float("inf")}),
        about_with(statistics={"r": 1.0, "l": None}),
        about_with(game={"wad": 7}),
        about_with(more=7),
        about_with(env={"env": "a\0b"}),
        about_with(env={"env": "\ud800"}),
        about_with(env={"skill": 10**400}),
        "[" * 10**5,
        about_with(gamma="much"),
        about_with(statistics=[]),
        about_with(statistics={"r": []}),
        about_with(env=7),
        about_with(game=None),
    ],
)
def test_a_foreign_archive_is_refused(tmp_path, about):
    path = tmp_path / "e.npz"
    np.savez(path, about=np.array(about), **ARRAYS)
    refused(path, "is not a recorded episode")


@pytest.mark.parametrize(
    "changes",
    [
        {"actions": np.array(["1", "2", "3"])},
        {"actions": np.array([True, False, True])},
        {"actions": np.zeros(3, np.uint64)},
        {"actions": np.zeros((3, 1, 1))},
        {"actions": np.array([0.0, np.nan, 0.0])},
        {"actions": np.zeros(3, complex)},
        {"rewards": np.array([0.0, np.inf, 0.0])},
        {"rewards": np.zeros(3, np.int64)},
        {"values": np.array([0.0, np.nan, 0.0], np.float32)},
        {"values": np.zeros((3, 1), np.float32)},
        {"probabilities": np.zeros(3, np.float32)},
        {name: array[:0] for name, array in ARRAYS.items()},
        {
            "actions": np.zeros(2**20 + 1, np.int8),
            **{name: np.zeros(2**20 + 1) for name in ("rewards", "values")},
            "probabilities": np.zeros((2**20 + 1, 0)),
        },
    ],
    ids=range(13),
)
def test_arrays_that_are_not_those_of_an_episode_are_refused(tmp_path, changes):
    path = tmp_path / "e.npz"
    np.savez_compressed(path, about=np.array(about_with()), **{**ARRAYS, **changes})
    refused(path, "is not a recorded episode")


@pytest.mark.parametrize("found", [0, 2, "one"])
def test_another_format_is_named(tmp_path, found):
    path = tmp_path / "e.npz"
    np.savez(path, about=np.array(about_with(format=found)))
    refused(path, f"is of format {found!r}; this program reads 1")


def test_arrays_of_different_lengths_are_refused(tmp_path):
    for name, array in (("values", np.zeros(3)), ("rewards", np.zeros((500, 1)))):
        episode = dataclasses.replace(make_episode(), **{name: array})
        save(tmp_path / "e.npz", episode)
        refused(tmp_path / "e.npz", "is not a recorded episode")


@pytest.mark.parametrize("terminated", [True, False])
def test_surprises_are_temporal_difference_errors(terminated):
    episode = dataclasses.replace(
        make_episode(steps=3),
        rewards=np.array([1.0, -2.0, 5.0]),
        values=np.array([3.0, 2.0, 4.0], np.float32),
        gamma=0.5,
        terminated=terminated,
    )
    # |1 + 2/2 - 3|, |-2 + 4/2 - 2|, |5 - 4|; the value of the last observation is not known.
    expected = [1.0, 2.0, 1.0 if terminated else 0.0]
    np.testing.assert_allclose(episode.surprises, expected)
    assert not dataclasses.replace(episode, gamma=0.0).surprises.any()


def test_an_archive_that_lacks_an_array_is_refused(tmp_path):
    np.savez(tmp_path / "e.npz", about=np.array(about_with()))
    refused(tmp_path / "e.npz", "is not a recorded episode")


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_flipped_byte_is_refused_or_harmless(tmp_path, data):
    path = tmp_path / "e.npz"
    episode = make_episode(steps=20)
    save(path, episode)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with contextlib.suppress(FileError):
        loaded = load_recording(path).episode
        # Each array has a checksum: what is read is what was written.
        np.testing.assert_array_equal(loaded.rewards, episode.rewards)
        np.testing.assert_array_equal(loaded.actions, episode.actions)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_a_recording_says_of_itself(tmp_path, data):
    about = json.loads(about_with(env=ENV, game=GAME))
    keys = data.draw(st.sampled_from(sorted(leaves(about), key=str)))
    put(about, keys, data.draw(st.sampled_from(VALUES)))
    np.savez(tmp_path / "e.npz", about=np.array(json.dumps(about)), **ARRAYS)
    with refused_or_harmless(FileError):
        load_recording(tmp_path / "e.npz")
