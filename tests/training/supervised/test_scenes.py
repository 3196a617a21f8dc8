"""Tests of `training.supervised.scenes`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from envs import EnvConfig
from envs.doom.env import DoomEnv
from envs.doom.sight import KINDS, MONSTER
from storage.arrays import write_arrays
from storage.files import DamagedError, FileError
from tests.training.supervised.data import made_scenes
from training.supervised.scenes import (
    PARTS,
    RandomPlayer,
    ScenesConfig,
    collect_scenes,
    examples_of,
    load_scenes,
    read_scenes,
    write_scenes,
)

SMALL = ScenesConfig(scenes=60, scenarios=("basic", "deathmatch"), height=30, width=40)


@pytest.fixture(scope="module")
def collected():
    return collect_scenes(SMALL)


def test_parts_have_their_shares_and_no_episode_or_screen_in_common(collected):
    assert np.bincount(collected.part).tolist() == [45, 6, 9]
    seeds = [set(collected.seed[collected.part == i]) for i in range(len(PARTS))]
    assert sum(map(len, seeds)) == len(set().union(*seeds))
    screens = {frame.tobytes() for frame in collected.frames}
    assert len(screens) == len(collected.frames) == 60
    # Basic is played at random and by its policy; there is no policy of deathmatch.
    players = set(zip(collected.scenario.tolist(), collected.trained.tolist(), strict=True))
    assert players == {(0, False), (0, True), (1, False)}


def test_scenes_of_an_episode_are_a_second_apart(collected):
    for episode in np.unique(collected.episode):
        steps = collected.step[collected.episode == episode]
        assert (np.diff(steps) >= 8).all()


def test_labels_fit_each_other(collected):
    drawn = np.stack([(collected.classes == k + 1).any((1, 2)) for k in range(len(KINDS))], 1)
    np.testing.assert_array_equal(collected.presence, drawn)
    monsters = collected.presence[:, MONSTER - 1]
    np.testing.assert_array_equal(np.isnan(collected.bearing), ~monsters)
    np.testing.assert_array_equal(np.isnan(collected.distance), ~monsters)
    assert (np.abs(collected.bearing[monsters]) < 60).all()


def test_frames_are_what_agents_observe(collected):
    """Those of the random player's first episode, in an environment that draws no buffers."""
    of_episode = (collected.scenario == 1) & (collected.part == 0) & (collected.seed == 0)
    expected = dict(zip(collected.step[of_episode], collected.frames[of_episode], strict=True))
    assert len(expected) > 3
    env = DoomEnv(EnvConfig(env="deathmatch", height=30, width=40))
    try:
        obs, _ = env.reset(seed=0)
        actions = RandomPlayer(env.action_space).play(0)
        for step, action in zip(range(max(expected) + 1), actions, strict=False):
            if step in expected:
                np.testing.assert_array_equal(obs, expected[step])
            obs, *_ = env.step(action)
        np.testing.assert_array_equal(env.palette, collected.palette)
    finally:
        env.close()


@pytest.mark.slow
def test_the_same_options_make_the_same_file(collected, tmp_path):
    again = collect_scenes(SMALL)
    paths = [tmp_path / name for name in ("one.npz", "other.npz")]
    hashes = [write_scenes(p, s, SMALL) for p, s in zip(paths, (collected, again), strict=True)]
    assert hashes[0] == hashes[1]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    other = collect_scenes(dataclasses.replace(SMALL, scenes=12, scenes_seed=1))
    assert not set(other.seed) & set(collected.seed)


def test_scenes_are_read_as_they_were_written(tmp_path):
    config = dataclasses.replace(SMALL, data=tmp_path / "scenes.npz")
    scenes = made_scenes(40, config)
    checksum = write_scenes(config.path, scenes, config)
    loaded, found = load_scenes(config)
    assert found == checksum
    for name, array in vars(scenes).items():
        np.testing.assert_array_equal(getattr(loaded, name), array)


def test_they_are_collected_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = []

    def collect(config, stops):
        calls.append(config)
        return made_scenes(40, config)

    monkeypatch.setattr("training.supervised.scenes.collect_scenes", collect)
    first = load_scenes(SMALL)[1]
    assert load_scenes(SMALL)[1] == first
    assert calls == [SMALL]
    assert SMALL.path.parts[0] == "data"
    assert SMALL.path != dataclasses.replace(SMALL, scenes=61).path


def test_examples_are_those_of_the_part():
    scenes = made_scenes(40, SMALL)
    sizes = {}
    for part in PARTS:
        examples = examples_of(scenes, part)
        sizes[part] = len(examples["image"])
        assert {len(tensor) for tensor in examples.values()} == {sizes[part]}
        assert examples["image"].dtype == torch.uint8
        torch.testing.assert_close(examples["presence"], (examples["counts"] > 0).float())
    assert sum(sizes.values()) == 40


def test_damaged_and_foreign_files_get_one_line(tmp_path):
    config = dataclasses.replace(SMALL, data=tmp_path / "scenes.npz")
    scenes = made_scenes(40, config)
    write_scenes(config.path, scenes, config)
    content = config.path.read_bytes()
    for damaged in (b"", b"no archive", content[:-100], content.replace(content[900:904], b"abcd")):
        config.path.write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"scenes\.npz is damaged, or holds no arrays"):
            load_scenes(config)
    write_scenes(config.path, scenes, config)
    with pytest.raises(FileError, match=r"holds scenes with scenes 60, not 61; name another file"):
        read_scenes(config.path, dataclasses.replace(config, scenes=61))
    wrong = {
        "frames": scenes.frames[..., 0],
        "classes": scenes.classes + np.uint8(4),
        "bearing": np.full_like(scenes.bearing, np.inf),
        "part": scenes.part.astype(np.int64),
    }
    for name, array in wrong.items():
        write_arrays(config.path, vars(scenes) | {name: array}, config.options())
        with pytest.raises(DamagedError, match=f"holds no scenes: {name} is"):
            load_scenes(config)
    arrays = {name: array for name, array in vars(scenes).items() if name != "step"}
    write_arrays(config.path, arrays, config.options())
    with pytest.raises(DamagedError, match="holds no scenes"):
        load_scenes(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenes": 5}, "scenes must be between 6 and 2^20, got 5"),
        ({"scenarios": ("nowhere",)}, "there is no scenario 'nowhere'; scenarios are basic"),
        ({"scenarios": ()}, "scenarios must be named, each once"),
        ({"scenarios": ("basic", "basic")}, "scenarios must be named, each once"),
        ({"scenes_seed": -1}, "scenes_seed must be between 0 and 999, got -1"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        ScenesConfig(**options)
    assert str(error.value).startswith(message)
