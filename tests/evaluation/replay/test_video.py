"""Tests of `evaluation.replay.video`."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from agents import RandomPlayer
from envs import EnvConfig, SharedVectorEnv
from envs.fingerprint import fingerprint
from envs.playback import ActionNames
from envs.video import read_mp4
from evaluation.protocol import Protocol, play
from evaluation.replay.recorded import ShownEpisode
from evaluation.replay.video import _readable, events, pictures, side_by_side, track
from storage.files import FileError
from storage.recording import Episode, Recording

SIZE = (160, 120)


@pytest.fixture(scope="module")
def shown():
    config = EnvConfig(env="defend_the_center", height=60, width=80, time_limit=1000)
    with contextlib.closing(SharedVectorEnv(config, 1)) as envs:
        player = RandomPlayer(envs.single_action_space)
        (episode,) = play(player, envs, Protocol(episodes=1, seed=4))
    recording = Recording(episode=episode, env=vars(config), game=fingerprint(config.env))
    return ShownEpisode(name="random", recording=recording, config=config)


def episode_of(steps, *, terminated=True, surprising=()):
    values = np.zeros(steps, np.float32)
    rewards = np.zeros(steps)
    for step, size in surprising:
        rewards[step] = size
    return Episode(
        seed=0,
        greedy=False,
        actions=np.zeros(steps, int),
        rewards=rewards,
        values=values,
        probabilities=np.zeros((steps, 0), np.float32),
        terminated=terminated,
        gamma=0.9,
        statistics={"r": rewards.sum(), "l": steps},
    )


def found(episode, *, died=False, **variables):
    arrays = {name: np.array(values, float) for name, values in variables.items()}
    return [(event.step, event.kind) for event in events(episode, arrays, died=died)]


def test_variables_are_called_as_words():
    names = {"AMMO2": "ammo 2", "DAMAGE_TAKEN": "damage taken", "HEALTH": "health"}
    assert {name: _readable(name) for name in names} == names


def test_kills_items_and_death_are_events():
    episode = episode_of(5)
    kills, items = [0, 1, 1, 3, 3], [0, 0, 0, 0, 1]
    assert found(episode, KILLCOUNT=kills, ITEMCOUNT=items, died=True) == [
        (1, "kill"),
        (3, "kill"),
        (4, "item"),
        (4, "death"),
    ]


def test_the_end_says_whether_time_was_up():
    assert [e.text for e in events(episode_of(3), {}, died=False)] == ["end"]
    assert [e.text for e in events(episode_of(3, terminated=False), {}, died=False)] == [
        "time is up"
    ]


def test_the_three_largest_surprises_that_are_apart_are_events():
    surprising = ((5, 4.0), (8, 9.0), (30, 2.0), (50, 3.0), (70, 1.0))
    episode = episode_of(80, surprising=surprising)
    steps = [step for step, kind in found(episode) if kind == "surprise"]
    assert steps == [8, 30, 50]  # Step 5 is too close to step 8.


def test_a_track_holds_what_a_page_shows(shown, tmp_path):
    episode = shown.episode
    made = track(shown, "seed 4", SIZE, 35)
    steps = len(episode.rewards)
    assert made.variables["health"][0] == 100
    assert {len(array) for array in made.variables.values()} == {steps}
    assert len(made.actions) == steps
    assert set(made.actions) <= set(ActionNames(shown.config).choices)
    assert made.choices == ()  # Random actions have no recorded probabilities.
    np.testing.assert_array_equal(made.rewards, episode.rewards)
    path = tmp_path / "v.mp4"
    path.write_bytes(made.video)
    frames = sum(1 for _ in read_mp4(path))
    assert 1 + 4 * (steps - 1) < frames <= 1 + 4 * steps
    assert made.events[-1].kind == ("death" if episode.terminated else "end")
    kills = sum(event.kind == "kill" for event in made.events)
    assert kills == len(np.flatnonzero(np.diff(made.variables.get("killcount", [0]), prepend=0)))


def test_an_overlay_is_drawn_on_the_pictures_if_requested(shown):
    plain, drawn = (next(pictures(shown, SIZE, overlay=overlay)) for overlay in (False, True))
    assert plain.shape == drawn.shape == (120, 160, 3)
    np.testing.assert_array_equal(plain[:80], drawn[:80])
    assert (plain[100:] != drawn[100:]).any()


def test_probabilities_of_other_choices_are_refused(shown):
    episode = shown.episode
    wrong = np.zeros((len(episode.rewards), 5), np.float32)
    recording = replace(shown.recording, episode=replace(episode, probabilities=wrong))
    with pytest.raises(FileError, match="probabilities of 5 choices, but defend_the_center has 6"):
        track(replace(shown, recording=recording), "", SIZE, 35)


def test_a_shorter_video_shows_its_last_picture_until_the_end():
    videos = [[np.full((2, 3, 3), n, np.uint8) for n in range(count)] for count in (2, 4)]
    images = list(side_by_side(videos))
    shown = [(int(image[0, 0, 0]), int(image[0, 3, 0])) for image in images]
    assert shown == [(0, 0), (1, 1), (1, 2), (1, 3)]
    assert {image.shape for image in images} == {(2, 6, 3)}
