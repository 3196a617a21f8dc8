"""What maps look like: every name exists, lists are disjoint, colours are shifted as said."""

from __future__ import annotations

import numpy as np
import pytest

from envs import EnvConfig
from envs.doom.cfg import FREEDOOM2
from envs.doom.env import DoomEnv
from envs.doom.maps.looks import CEILINGS, DOORS, FLOORS, HOSTILE_FLATS, WALLS, colour_shift
from envs.doom.maps.maze import MazeConfig
from envs.doom.maps.top_view import top_view
from envs.doom.wad import _textures, read_directory, read_palette


def test_textures_exist_and_those_for_testing_are_others():
    walls = {name for name, *_ in _textures(FREEDOOM2)}
    flats = {name for name, _, size in read_directory(FREEDOOM2) if size == 4096}
    assert {*WALLS["train"], *WALLS["test"], *DOORS.values()} <= walls
    assert {*FLOORS["train"], *FLOORS["test"], *CEILINGS["train"], *CEILINGS["test"]} <= flats
    assert set(HOSTILE_FLATS.values()) <= flats
    for lists in (WALLS, FLOORS, CEILINGS):
        assert not set(lists["train"]) & set(lists["test"])


def test_a_shift_shows_the_nearest_colour_of_the_palette():
    palette = read_palette(FREEDOOM2, None)
    assert colour_shift(MazeConfig(), palette) is None
    darker = palette[colour_shift(MazeConfig(colour_gamma=2.0), palette)]
    wanted = (palette / 255.0) ** 2 * 255
    assert np.abs(darker - wanted).mean() < 12
    assert darker.mean() < palette.mean()
    red = int(np.argmin(((palette - np.array([255, 0, 0])) ** 2).sum(axis=1)))
    shown = palette[colour_shift(MazeConfig(swapped_colours=True), palette)[red]]
    assert shown[2] > 200 > 60 > shown[0]


@pytest.mark.parametrize("observation", ["palette", "rgb", "gray"])
def test_each_axis_changes_the_picture_and_nothing_else(observation: str):
    """Maps look different from the first frame on, the field of view from the second one."""
    seen = {}
    for name, options in {
        "plain": {},
        "textures": {"textures": "test"},
        "light": {"light": [40, 60]},
        "gamma": {"colour_gamma": 2.0},
        "swapped": {"swapped_colours": True},
        "view": {"field_of_view": 120},
        "hud": {"hud": True},
        "monsters": {"monster_look": "marine"},
    }.items():
        if observation != "palette" and name not in ("plain", "gamma"):
            continue
        config = EnvConfig(
            env="maps:arena", observation=observation, height=60, width=80, map=options
        )
        env = DoomEnv(config)
        env.reset(seed=2)
        rewards = [env.step(env.action_space.sample() * 0)[1] for _ in range(3)]
        obs, *_, info = env.step(env.action_space.sample() * 0)
        env.close()
        seen[name] = obs, (rewards, info)
    for name, (obs, rest) in seen.items():
        assert rest == seen["plain"][1], name
        assert (obs == seen["plain"][0]).all() == (name == "plain"), name


def test_the_top_view_shows_rooms_walls_and_things():
    env = DoomEnv(EnvConfig(env="maps:maze"))
    assert env.maps is not None
    level = env.maps.level(4)
    picture = top_view(level, 8)
    height, width = level.rooms.shape
    assert picture.shape == (8 * height, 8 * width, 3)
    solid = picture[::8, ::8].max(axis=2) < 60  # the corner of each cell
    assert (solid[::-1] == (level.rooms < 0)).all()
    row, column = level.start.cell
    start = picture[::-1][8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
    assert (start[..., 2].astype(int) - start[..., 0] > 100).any()  # blue
    with_path = top_view(level, 8, [level.centre((row, column)), level.centre(level.targets[0])])
    assert (with_path != picture).any()
