"""Tests of `envs.doom.altered`: one thing is different, and nothing else."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from envs import DoomEnv, EnvConfig
from envs.doom.altered import FLATS, WALLS, AlteredDoom, retextured
from envs.doom.cfg import game_spec
from envs.doom.sight import ITEM, MONSTER
from envs.doom.wad import read_directory

ACTIONS = (2, 4, 3, 1, 2)


def played(env, commands=None, at=2):
    """Play, and return observations, rewards and infos; commands belong to one env step."""
    found = [env.reset(seed=3)]
    for step, action in enumerate(ACTIONS):
        if commands is not None and step == at:
            observed, reward, *_, info = env.advance_with(action, commands)
        else:
            observed, reward, *_, info = env.step(action)
        found.append((observed, info | {"reward": reward}))
    return [o.copy() for o, _ in found], [info for _, info in found]


@pytest.fixture(scope="module")
def basic():
    """Episodes of `basic` at skill 5, where the engine refuses cheats by default."""
    config = EnvConfig(env="basic", height=60, width=80)
    with contextlib.closing(DoomEnv(config)) as env:
        plain = played(env)
    with contextlib.closing(AlteredDoom(config)) as env:
        unchanged = played(env, ["remove NoSuchActor"])
        classes = env.visible()
        removed = played(env, ["remove Cacodemon"])
        kinds = env.kinds()
        again = played(env, ["remove NoSuchActor"])
    return {
        "plain": plain, "unchanged": unchanged, "removed": removed, "again": again,
        "classes": classes, "kinds": kinds,
    }  # fmt: skip


def test_a_command_in_vain_changes_nothing(basic):
    for name in ("unchanged", "again"):
        for ours, theirs in zip(basic[name][0], basic["plain"][0], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(basic[name][1], basic["plain"][1], strict=True):
            assert {key: ours[key] for key in theirs} == theirs


def test_a_removed_monster_is_gone_in_the_env_step_of_the_command(basic):
    assert basic["classes"] == {MONSTER: ("Cacodemon",)}
    changed = [
        int((ours != theirs).sum())
        for ours, theirs in zip(basic["removed"][0], basic["plain"][0], strict=True)
    ]
    assert changed[:3] == [0, 0, 0]
    assert all(0 < number < 400 for number in changed[3:])
    assert not (basic["kinds"] == MONSTER).any()


def test_drawing_and_textures_change_pixels_and_no_rules(basic, tmp_path):
    config = EnvConfig(env="basic", height=60, width=80)
    wad = game_spec("basic").wad
    walls, flats = tmp_path / "walls.wad", tmp_path / "flats.wad"
    assert retextured(wad, walls, "STONE2", WALLS) >= 4
    assert retextured(wad, flats, "FLAT1", FLATS) == 2
    names = [[name for name, *_ in read_directory(path)] for path in (wad, walls, flats)]
    assert names[0] == names[1] == names[2]
    upper, lower = slice(0, 24), slice(45, 60)
    for changes, rows in (
        ({"settings": {"render_weapon": False}}, lower),
        ({"wad": flats}, upper),
        ({"wad": walls}, slice(0, 60)),
    ):
        with contextlib.closing(AlteredDoom(config, **changes)) as env:
            seen, infos = played(env)
        for ours, theirs in zip(infos, basic["plain"][1], strict=True):
            assert {key: ours[key] for key in theirs} == theirs
        assert all(
            (ours[rows] != theirs[rows]).sum() > 50
            for ours, theirs in zip(seen, basic["plain"][0], strict=True)
        )


def test_items_are_removed_where_cheats_are_allowed():
    with contextlib.closing(AlteredDoom(EnvConfig(env="health_gathering"))) as env:
        env.reset(seed=0)
        assert env.visible() == {ITEM: ("Medikit",)}
        env.advance_with(0, ["remove Medikit"])
        assert not env.visible()
