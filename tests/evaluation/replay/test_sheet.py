"""Tests of `evaluation.replay.sheet`, with made-up episodes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from envs.playback import Moment
from evaluation.replay import sheet as module
from evaluation.replay.sheet import _STANDSTILL, FPS, Tile, columns_for, sheet, tiles_of

SIZE = (40, 30)


def episode(*rewards, shade=0, per_step=4):
    """Make an episode whose pictures are brighter and brighter, as many for each env step."""
    steps = np.array(rewards, np.float64)

    def moments(size):
        picture = np.full((size[1], size[0], 3), shade, np.uint8)
        yield Moment(image=picture, step=0, reward=0.0)
        for step, reward in enumerate(rewards):
            for part in range(per_step):
                yield Moment(
                    image=picture + np.uint8(step + 1),
                    step=step,
                    reward=reward / per_step,
                    terminated=(step, part) == (len(rewards) - 1, per_step - 1),
                )

    played = SimpleNamespace(rewards=steps, episode_return=steps.sum())
    return SimpleNamespace(episode=played, config=None, moments=moments)


@pytest.fixture(autouse=True)
def doom(monkeypatch):
    monkeypatch.setattr(module, "playback_fps", lambda config: 35.0)


def test_the_part_with_the_most_reward_is_shown_at_normal_speed():
    rewards = [0, 0, 0, 1, 1, 0, 0, 0]
    tiles = tiles_of([episode(*rewards)], "a", SIZE, 3)
    assert 35 / FPS == 4
    assert [tile.total for tile in tiles] == ["0", "1", "2"]
    assert [int(tile.image[0, 0, 0]) for tile in tiles] == [3, 4, 5]
    # Of parts with as much of it, the last.
    assert [t.total for t in tiles_of([episode(1, 1, 1, 1)], "a", SIZE, 2)] == ["3", "4"]


def test_the_best_episode_is_shown():
    tiles = tiles_of([episode(1, 1, 1), episode(2, 2, 2, shade=100)], "a", SIZE, 2)
    assert [tile.total for tile in tiles] == ["4", "6"]


def test_short_episodes_follow_each_other():
    tiles = tiles_of([episode(0.5), episode(-3, shade=100)], "a", SIZE, 15)
    first, second = ["0.00", "0.50", *["0.50"] * _STANDSTILL], ["0", "-3", *["-3"] * _STANDSTILL]
    assert [tile.total for tile in tiles] == [*first, *second, *first[:3]]


@pytest.mark.parametrize(
    ("num", "columns"), [(1, 1), (2, 2), (4, 2), (6, 3), (7, 4), (12, 4), (15, 5), (16, 4)]
)
def test_few_places_stay_empty(num, columns):
    assert columns_for(num) == columns


def test_a_sheet_holds_all_pictures_and_texts():
    tiles = [
        Tile(image=np.full((30, 40, 3), 40 * i, np.uint8), name=f"a long name {i}", total="7")
        for i in range(1, 6)
    ]
    paper = sheet(tiles, columns=3)
    places = [tuple(np.argwhere((paper == 40 * i).all(axis=2)).min(axis=0)) for i in (1, 3, 5)]
    assert places[0][0] == places[1][0] < places[2][0]
    for i in range(1, 6):
        assert (paper == 40 * i).all(axis=2).sum() >= 30 * 40
    below = paper[places[0][0] + 30 : places[2][0]]
    assert below.max() > 200
    assert sheet(tiles[:1]).shape[1] < paper.shape[1] / 2
