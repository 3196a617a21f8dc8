"""Tests of `evaluation.replay.recorded`: replays equal recordings, or differences are reported."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import shutil

import numpy as np
import pytest

from agents import RandomPlayer
from envs import SCENARIOS, EnvConfig, EnvError, SharedVectorEnv, make
from envs.doom.cfg import BUNDLED
from envs.fingerprint import fingerprint
from envs.video import write_mp4
from evaluation.errors import EvaluationError
from evaluation.protocol import Protocol, play
from evaluation.replay.recorded import (
    DivergedError,
    ShownEpisode,
    choose,
    recorded_episodes,
    replay_recording,
)
from storage.files import FileError
from storage.recording import Recording, load_recording, save_recording

CARTPOLE = EnvConfig(env="CartPole-v1")
SMALL = {"height": 60, "width": 80}
LARGE, TINY = (320, 240), (60, 40)


def record(config, episodes=1, seed=0):
    with contextlib.closing(SharedVectorEnv(config, min(4, episodes))) as envs:
        player = RandomPlayer(envs.single_action_space)
        played = play(player, envs, Protocol(episodes=episodes, seed=seed, num_envs=4))
    game = fingerprint(config.env)
    return [Recording(episode=e, env=dataclasses.asdict(config), game=game) for e in played]


def infos_of_env_steps(config, recording):
    """Take the recorded actions, one env step at a time, and return the info after each."""
    env = make(config)
    with contextlib.closing(env):
        env.reset(seed=recording.episode.seed)
        return [env.step(action)[-1] for action in recording.episode.actions]


def variables_of_a_replay(config, recording):
    """Return the game variables after each env step of a replay."""
    by_step = {}
    for moment in replay_recording(recording, config, LARGE):
        by_step[moment.step] = dict(moment.variables)
    return list(by_step.values())


def check(names, count):
    # Another process knows only the recordings.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for name in names:
            config = EnvConfig(env=name, **SMALL)
            for recording in record(config, count):
                infos = infos_of_env_steps(config, recording)
                replayed = pool.apply(variables_of_a_replay, (config, recording))
                expected = [{key: info[key] for key in replayed[0]} for info in infos]
                assert len(expected) == len(replayed) == len(recording.episode.rewards)
                # When the environment ends the episode, `info` is that of the last drawn frame:
                # that of the env step before, or, in a replay frame by frame, the frame before.
                last = -1 if recording.episode.terminated else None
                assert replayed[:last] == expected[:last]


@pytest.mark.slow
def test_recordings_replay_in_another_process_and_at_another_size():
    check(["basic", "take_cover"], 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_ten_recordings_of_every_scenario_replay_in_another_process(name):
    check([name], 10)


@pytest.fixture(scope="module")
def cartpole():
    """A recording of an episode of CartPole."""
    (recording,) = record(CARTPOLE)
    return recording


def test_recordings_of_other_environments_replay_too(cartpole):
    moments = list(replay_recording(cartpole, CARTPOLE, TINY))
    assert len(moments) == 1 + len(cartpole.episode.rewards)
    assert moments[-1].terminated


def changed(recording, **arrays):
    return dataclasses.replace(recording, episode=dataclasses.replace(recording.episode, **arrays))


def test_a_replay_that_differs_reports_the_env_step_and_the_recorded_versions(cartpole):
    rewards = cartpole.episode.rewards.copy()
    rewards[4] = 7.0
    differing = changed(cartpole, rewards=rewards)
    message = r"seed 0 differs .*: the reward of env step 4 is 1, but 7 was recorded$"
    with pytest.raises(DivergedError, match=message):
        list(replay_recording(differing, CARTPOLE, TINY))
    other = dataclasses.replace(differing, game={"gymnasium": "0.29.1"})
    with pytest.raises(DivergedError, match=r"it was recorded with gymnasium 0.29.1, now 1\."):
        list(replay_recording(other, CARTPOLE, TINY))


def test_a_replay_that_ends_otherwise_is_reported(cartpole):
    episode = cartpole.episode
    longer = {
        name: np.concatenate([getattr(episode, name)] * 2)
        for name in ("actions", "rewards", "values", "probabilities")
    }
    steps = len(episode.rewards)
    for wrong, end in (
        (changed(cartpole, **longer), f"terminated after {2 * steps}"),
        (changed(cartpole, terminated=False), f"was truncated after {steps}"),
    ):
        message = f"it ends after {steps} env steps, but the recorded one {end}"
        with pytest.raises(DivergedError, match=message):
            list(replay_recording(wrong, CARTPOLE, TINY))


def test_a_wad_that_has_changed_is_refused(tmp_path):
    for name in ("basic.cfg", "basic.wad"):
        shutil.copy(BUNDLED / name, tmp_path)
    config = EnvConfig(env=str(tmp_path / "basic.cfg"), **SMALL)
    (recording,) = record(config)
    shutil.copy(BUNDLED / "simpler_basic.wad", tmp_path / "basic.wad")
    with pytest.raises(EnvError, match=r"basic\.wad is not the file that was recorded with"):
        next(replay_recording(recording, config, LARGE))


@pytest.fixture(scope="module")
def recordings():
    """Recordings of five episodes of CartPole."""
    return record(CARTPOLE, 5, seed=10)


@pytest.fixture
def recorded(recordings, tmp_path):
    """A folder with three scored episodes, and two of an evaluation during training."""
    for kind, chosen in (("score-sampled", recordings[:3]), ("evaluation", recordings[3:])):
        for recording in chosen:
            path = tmp_path / f"{kind}-{recording.episode.seed:09d}.npz"
            save_recording(path, recording)
    return tmp_path


def seeds(shown):
    return [s.episode.seed for s in shown]


def test_scored_episodes_are_preferred_to_those_of_evaluations_during_training(recorded):
    found = recorded_episodes(recorded, name="cart", trust=False)
    assert seeds(found) == [10, 11, 12]
    for path in recorded.glob("score-*"):
        path.unlink()
    assert seeds(recorded_episodes(recorded, name="cart", trust=False)) == [13, 14]


def test_episodes_are_chosen_by_return_order_or_seed(recorded):
    found = recorded_episodes(recorded, name="cart", trust=False)
    returns = {s.episode.seed: s.episode.episode_return for s in found}
    assert returns[seeds(choose(found, "best", 1))[0]] == max(returns.values())
    assert returns[seeds(choose(found, "worst", 1))[0]] == min(returns.values())
    assert seeds(choose(found, "last", 2)) == [11, 12]
    assert seeds(choose(found, "11", 2)) == [11, 12]
    with pytest.raises(
        EvaluationError, match=r"no episode '999' is recorded; .* seed from 10 to 12"
    ):
        choose(found, "999", 1)


@pytest.mark.parametrize(
    ("episodes", "expected"),
    [
        # Return and number of env steps, and which ones are shown first.
        ([(95, 2), (80, 12), (60, 30)], [1, 2, 0]),
        ([(95, 2), (83, 5), (67, 8)], [2, 1, 0]),
        ([(10, 20), (10, 40), (9, 90)], [1, 0, 2]),
        ([(1, 3), (2, 3)], [1, 0]),
    ],
)
def test_the_highlight_is_the_best_of_the_long_episodes_else_the_longest(
    cartpole, episodes, expected
):
    recording = cartpole
    episode = recording.episode
    shown = [
        ShownEpisode(
            name=str(i),
            recording=dataclasses.replace(
                recording,
                episode=dataclasses.replace(
                    episode, rewards=np.zeros(steps), statistics={"r": total}
                ),
            ),
            config=CARTPOLE,
        )
        for i, (total, steps) in enumerate(episodes)
    ]
    assert [int(s.name) for s in choose(shown, "highlight", 9)] == expected


def test_kept_pictures_are_shown_if_an_environment_is_not_deterministic():
    config = EnvConfig(env="tests.agents.toy:Chancy-v0")
    (recording,) = record(config)
    with pytest.raises(DivergedError):
        list(replay_recording(recording, config, TINY))
    video = [np.full((20, 30, 3), n, np.uint8) for n in range(7)]
    shown = ShownEpisode(
        name="chancy", recording=recording, config=config, video=lambda: iter(video)
    )
    moments = list(shown.moments(TINY))
    assert [m.step for m in moments] == [0, 0, 1, 2, 3, 4, 5]
    assert [m.image[0, 0, 0] for m in moments] == list(range(7))
    assert {m.image.shape for m in moments} == {(40, 60, 3)}
    assert sum(m.reward for m in moments) == pytest.approx(recording.episode.episode_return)
    assert moments[-1].terminated


def test_recordings_with_a_video_are_preferred(recorded):
    (found, *_) = recorded_episodes(recorded, name="cart", trust=False)
    assert found.video is None
    pictures = [np.full((20, 30, 3), n, np.uint8) for n in range(3)]
    write_mp4(recorded / "evaluation-000000014.mp4", iter(pictures), 10)
    (shown,) = recorded_episodes(recorded, name="cart", trust=False)
    assert shown.episode.seed == 14
    assert len(list(shown.video())) == 3


def test_a_recording_contains_the_versions_of_its_environment(recorded):
    path = next(recorded.glob("*.npz"))
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
    assert about["game"] == load_recording(path).game == fingerprint("CartPole-v1")


@pytest.mark.parametrize("count", [0, 3, 99])
def test_a_video_of_another_length_is_refused(recorded, count):
    (shown, *_) = recorded_episodes(recorded, name="cart", trust=False)
    pictures = [np.zeros((20, 30, 3), np.uint8)] * count
    wrong = dataclasses.replace(shown, video=lambda: iter(pictures))
    with pytest.raises(FileError, match="does not have one picture for each of its"):
        list(wrong.moments(TINY))
