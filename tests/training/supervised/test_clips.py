"""Tests of `training.supervised.clips` and `training.supervised.video`, on real Doom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from perception import PerceptionConfig
from perception.encoders import NatureConfig
from perception.memory import LSTMConfig
from storage.arrays import write_arrays
from storage.files import DamagedError, FileError
from training.supervised.clips import (
    EVENTS,
    PARTS,
    PLAYERS,
    Clips,
    ClipsConfig,
    collect_clips,
    event_of,
    load_clips,
)
from training.supervised.network import build_network
from training.supervised.video import Video, VideoConfig

LENGTH = ClipsConfig.length
SMALL = ClipsConfig(clips=36, scenarios=("health_gathering", "take_cover"), height=30, width=40)
STILL = {"kills": 0.0, "damage_taken": 0.0, "items": 0.0, "health": 100.0}


@pytest.fixture(scope="module")
def clips():
    return collect_clips(SMALL)


@pytest.mark.slow
def test_the_same_options_make_the_same_clips(clips):
    again = collect_clips(SMALL)
    for name, array in vars(clips).items():
        np.testing.assert_array_equal(array, getattr(again, name), name)


def test_clips_are_spread_over_scenarios_players_and_parts(clips):
    assert clips.frames.shape == (36, LENGTH, 30, 40, 1)
    pairs = np.bincount(clips.scenario * len(PLAYERS) + clips.player)
    assert pairs.sum() == 36
    assert pairs.max() - pairs.min() <= len(PARTS)
    assert np.bincount(clips.part).tolist() == [25, 4, 7]
    # Frames move: hardly any clip is a still picture.
    moves = [(clip[1:] != clip[:-1]).any() for clip in clips.frames]
    assert np.mean(moves) > 0.9


def test_parts_have_different_episodes(clips):
    episodes = [set(clips.seed[clips.part == i].tolist()) for i in range(len(PARTS))]
    assert not episodes[0] & episodes[1]
    assert not episodes[0] & episodes[2]
    assert not episodes[1] & episodes[2]


def test_health_is_lost_where_the_floor_hurts(clips):
    """In health_gathering, the floor costs 8 points each second; nobody is killed."""
    events = {EVENTS[i] for i in clips.event[clips.scenario == 0]}
    assert events <= {"none", "hurt", "pick-up"}
    assert {"hurt", "pick-up"} <= events


@pytest.mark.parametrize(
    ("change", "event"),
    [
        ({}, "none"),
        ({"kills": 1.0, "damage_taken": 5.0, "items": 1.0}, "kill"),
        ({"damage_taken": 5.0, "health": 95.0}, "hurt"),
        ({"damage_taken": 8.0, "health": 117.0}, "pick-up"),
        ({"items": 1.0}, "pick-up"),
        ({"health": 125.0}, "pick-up"),
    ],
)
def test_events_are_changes_of_variables(change, event):
    assert EVENTS[event_of(STILL, {**STILL, **change})] == event


def test_a_file_is_read_as_it_was_written_or_refused(tmp_path, clips):
    config = replace(SMALL, data=tmp_path / "clips.npz")
    write_arrays(config.path, vars(clips), config.options())
    read, checksum = load_clips(config)
    assert len(checksum) == 64
    for name, array in vars(clips).items():
        np.testing.assert_array_equal(array, getattr(read, name), name)
    with pytest.raises(FileError, match="holds clips with clips 36, not 37; name another"):
        load_clips(replace(config, clips=37))
    for name, value in (
        ("event", clips.event + 4),
        ("seed", clips.seed[1:]),
        ("frames", clips.frames[..., 0]),
        ("buttons", np.full_like(clips.buttons, np.nan)),
    ):
        write_arrays(config.path, {**vars(clips), name: value}, config.options())
        with pytest.raises(DamagedError, match=f"holds no clips: {name}"):
            load_clips(config)
    config.path.write_bytes(config.path.read_bytes()[:-100])
    with pytest.raises(DamagedError):
        load_clips(config)


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="no trained policy for 'deathmatch'"):
        ClipsConfig(scenarios=("deathmatch",))
    with pytest.raises(ValueError, match="clips must be between"):
        ClipsConfig(clips=0)
    with pytest.raises(ValueError, match="frames must be between 1 and 8, got 9"):
        VideoConfig(frames=9)


def toy(count=48):
    """Return clips whose last frame tells scenario and player, and the one before it the event."""
    two = np.zeros((2, 36, 40, 1), np.uint8)
    two[0, :, :20] = two[1, :, 20:] = 255  # Bright on the left, or on the right.
    event = np.arange(count) % 2
    frames = np.zeros((count, LENGTH, 36, 40, 1), np.uint8)
    frames[:, LENGTH - 2] = two[event]
    scenario = (np.arange(count) // 2 % 2).astype(np.uint8)
    frames[:, LENGTH - 1, :18] = 200 * scenario[:, None, None, None]
    return Clips(
        frames=frames,
        buttons=np.zeros((count, LENGTH, 0), np.float32),
        scenario=scenario,
        player=scenario,
        event=event.astype(np.uint8),
        part=np.repeat(np.uint8([0, 1, 2]), count // 3),
        seed=np.arange(count),
        palette=np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1),
    )


@pytest.mark.parametrize("frames", [1, 2])
def test_what_needs_two_frames_is_learned_from_two_alone(monkeypatch, frames):
    torch.manual_seed(0)
    monkeypatch.setattr("training.supervised.video.load_clips", lambda config: (toy(), "0"))
    task = Video(VideoConfig(frames=frames, height=36, width=40))
    train = task.load("train")
    encoder = NatureConfig(conv_channels=(8, 8, 8), features=32)
    config = PerceptionConfig(encoder=encoder, memory=LSTMConfig())
    network = build_network(task.specs(train), config, task.head, normalize_obs=True)
    network.perception.observe({"image": train["image"].flatten(0, 1)})
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(60):
        loss = task.loss(task.predict(network, train), train)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        measures = task.measure(task.statistics(task.predict(network, train), train))
    assert (measures["accuracy_event"] == 1.0) == (frames == 2)
    assert measures["accuracy_scenario"] == 1.0
    baseline = task.measure(task.baseline(train, task.load("test")))
    assert baseline["accuracy_event"] == 0.5
