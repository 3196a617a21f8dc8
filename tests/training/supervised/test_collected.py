"""Tests of `training.supervised.collected`."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from envs import StoppedError
from envs.doom import engine
from storage.files import FileError
from tests.training.supervised.data import made_scenes
from training.supervised import collected
from training.supervised.clips import ClipsConfig, collect_clips
from training.supervised.collected import collect_once
from training.supervised.scenes import ScenesConfig, collect_scenes

COLLECTORS = {
    "scenes": (ScenesConfig(scenes=8, scenarios=("basic", "take_cover")), collect_scenes),
    "clips": (ClipsConfig(clips=8, scenarios=("basic", "take_cover")), collect_clips),
}


def stops_at(number):
    """Return a function that returns True when it is called so many times, and from then on."""
    calls = iter(range(number - 1))
    return lambda: next(calls, None) is None


@pytest.mark.parametrize("name", COLLECTORS)
def test_what_is_stopped_leaves_nothing_behind(tmp_path, name):
    config, collect = COLLECTORS[name]
    config = replace(config, data=tmp_path / "data" / "examples.npz")
    with pytest.raises(StoppedError):
        collect_once(config, collect, stops_at(5))
    assert not engine._locks
    assert not list(tmp_path.iterdir())


def test_it_stops_also_while_it_writes(tmp_path):
    config = ScenesConfig(scenes=40, data=tmp_path / "scenes.npz")
    with pytest.raises(StoppedError):
        collect_once(config, lambda config, stops: made_scenes(40, config), stops_at(5))
    assert not list(tmp_path.iterdir())
    collect_once(config, lambda config, stops: made_scenes(40, config))
    assert [path.name for path in tmp_path.iterdir()] == ["scenes.npz"]


@pytest.mark.parametrize("name", COLLECTORS)
def test_different_palettes_are_refused_before_anything_is_played(monkeypatch, name):
    palettes = {"basic": np.zeros((256, 3)), "take_cover": np.ones((256, 3))}
    monkeypatch.setattr(
        collected, "DoomEnv", lambda config: SimpleNamespace(palette=palettes[config.env])
    )
    config, collect = COLLECTORS[name]
    with pytest.raises(FileError, match="take_cover has another palette than basic"):
        collect(config)


def test_more_than_fits_is_refused_at_once():
    with pytest.raises(ValueError, match=r"5,000 scenes of this size are 1\.\d GiB"):
        ScenesConfig(height=480, width=640)
    with pytest.raises(ValueError, match="frame_stack must be at least 1, got 0"):
        ClipsConfig(frame_stack=0)
