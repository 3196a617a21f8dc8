"""Tests of `training.progress`."""

from __future__ import annotations

import dataclasses
import json

import pytest

from storage.files import FileError, decode
from training.config import default_config, with_values
from training.progress import Progress, is_finished

PROGRESS = Progress(
    env_steps=640,
    episodes=7,
    seconds=1.5,
    returns=[1.0, 2.5],
    lengths=[3.0, 4.0],
    best_score=2.0,
    evaluations_since_best=1,
)


def test_it_goes_through_json_as_it_is():
    through = json.loads(json.dumps(dataclasses.asdict(PROGRESS)))
    assert decode(Progress, through) == PROGRESS
    with pytest.raises(FileError, match="there is no field 'luck'"):
        decode(Progress, {**through, "luck": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"env_steps": -(10**12)},
        {"env_steps": 2**60},
        {"env_steps": 10**400},
        {"episodes": "x"},
        {"seconds": float("inf")},
        {"seconds": float("nan")},
        {"other_seconds": -1.0},
        {"next_episode_seed": -5},
        {"next_episode_seed": 5},
        {"next_episode_seed": 2**31},
        {"next_evaluation": -(10**15)},
        {"returns": ["x"]},
        {"lengths": 7},
        {"evaluations_since_best": -1},
    ],
    ids=str,
)
def test_what_no_training_wrote_is_refused(change):
    with pytest.raises(FileError) as error:
        decode(Progress, dataclasses.asdict(PROGRESS) | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e308])
def test_returns_may_be_anything_that_an_environment_pays(value):
    changed = dataclasses.asdict(PROGRESS) | {"returns": [value] * 100, "best_score": value}
    assert decode(Progress, changed).best_score == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    ("env_steps", "patience", "since_best", "expected"),
    [
        (0, None, 0, False),
        (999, None, 50, False),
        (1000, None, 0, True),
        (1001, None, 0, True),
        (500, 2, 1, False),
        (500, 2, 2, True),
        (500, 2, 3, True),
        (1000, 2, 0, True),
    ],
)
def test_a_training_is_finished_when_its_env_steps_or_its_patience_are_used_up(
    env_steps, patience, since_best, expected
):
    values = {"total_env_steps": 1000, "patience": patience}
    config = with_values(default_config("CartPole-v1"), values)
    progress = Progress(env_steps=env_steps, evaluations_since_best=since_best)
    assert is_finished(config, progress) is expected
