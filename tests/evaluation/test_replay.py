"""Tests of `evaluation.replay`: recordings come out the same, or say where they do not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import shutil

import numpy as np
import pytest

from agents import RandomPlayer
from agents.commandline import UsageError
from envs import SCENARIOS, EnvConfig, EnvError, SharedVectorEnv, make
from envs.cfg import BUNDLED
from envs.fingerprint import fingerprint
from evaluation.episodes import Recording, load_recording, save_recording
from evaluation.protocol import Protocol, play
from evaluation.replay import DivergedError, Shown, choose, play_again, recorded_episodes

SMALL = {"height": 60, "width": 80}
LARGE = (640, 480)


def record(config, episodes=1, seed=0):
    with contextlib.closing(SharedVectorEnv(config, min(4, episodes))) as envs:
        player = RandomPlayer(envs.single_action_space)
        played = play(player, envs, Protocol(episodes=episodes, seed=seed, num_envs=4))
    game = fingerprint(config.env)
    return [Recording(episode=e, env=vars(config), game=game) for e in played]


def told_at_the_ends_of_env_steps(config, recording):
    """Play as was played, one env step at a time, and give the game variables after each."""
    env = make(config)
    with contextlib.closing(env):
        env.reset(seed=recording.episode.seed)
        return [env.step(action)[-1] for action in recording.episode.actions]


def variables_of_a_replay(config, recording):
    by_step = {}
    for moment in play_again(recording, config, LARGE):
        by_step[moment.step] = dict(moment.variables)
    return list(by_step.values())


def check(name, count):
    config = EnvConfig(env=name, **SMALL)
    # Another process knows nothing but the recordings.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for recording in record(config, count):
            infos = told_at_the_ends_of_env_steps(config, recording)
            replayed = pool.apply(variables_of_a_replay, (config, recording))
            expected = [{key: info[key] for key in replayed[0]} for info in infos]
            assert len(expected) == len(replayed) == len(recording.episode.rewards)
            # Where the world ended, `info` is of the last frame drawn: that of the env step before,
            # or, played tic by tic, of the tic before.
            last = -1 if recording.episode.terminated else None
            assert replayed[:last] == expected[:last]


@pytest.mark.parametrize("name", ["basic", "defend_the_line", "predict_position"])
def test_a_recording_replays_in_another_process_and_larger(name):
    check(name, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_ten_recordings_of_every_scenario_replay_in_another_process_and_larger(name):
    check(name, 10)


def test_worlds_outside_doom_replay_too():
    config = EnvConfig(env="CartPole-v1")
    (recording,) = record(config)
    moments = list(play_again(recording, config, (60, 40)))
    assert len(moments) == 1 + len(recording.episode.rewards)
    assert moments[-1].terminated


def changed(recording, **arrays):
    return dataclasses.replace(recording, episode=dataclasses.replace(recording.episode, **arrays))


def test_a_game_that_differs_says_where_and_what_it_was_recorded_with():
    config = EnvConfig(env="CartPole-v1")
    (recording,) = record(config)
    rewards = recording.episode.rewards.copy()
    rewards[4] = 7.0
    with pytest.raises(DivergedError, match=r"seed 0: env step 4 pays 1, recorded is 7$"):
        list(play_again(changed(recording, rewards=rewards), config, (60, 40)))
    other = dataclasses.replace(changed(recording, rewards=rewards), game={"gymnasium": "0.29.1"})
    with pytest.raises(DivergedError, match=r"it was recorded with gymnasium 0.29.1, now 1\."):
        list(play_again(other, config, (60, 40)))


def test_an_episode_that_ends_sooner_or_otherwise_says_so():
    config = EnvConfig(env="CartPole-v1")
    (recording,) = record(config)
    episode = recording.episode
    longer = {
        name: np.concatenate([getattr(episode, name)] * 2)
        for name in ("actions", "rewards", "values", "probabilities")
    }
    steps = len(episode.rewards)
    for wrong in (changed(recording, **longer), changed(recording, terminated=False)):
        with pytest.raises(DivergedError, match=f"it ends after {steps} env steps"):
            list(play_again(wrong, config, (60, 40)))


def test_a_wad_that_changed_is_refused(tmp_path):
    for name in ("basic.cfg", "basic.wad"):
        shutil.copy(BUNDLED / name, tmp_path)
    config = EnvConfig(env=str(tmp_path / "basic.cfg"), **SMALL)
    (recording,) = record(config)
    shutil.copy(BUNDLED / "simpler_basic.wad", tmp_path / "basic.wad")
    with pytest.raises(EnvError, match=r"basic\.wad is not the file that was recorded with"):
        next(play_again(recording, config, LARGE))


@pytest.fixture
def recorded(tmp_path):
    recordings = record(EnvConfig(env="CartPole-v1"), 5, seed=10)
    for kind, chosen in (("score-sampled", recordings[:3]), ("evaluation", recordings[3:])):
        for r in chosen:
            path = tmp_path / f"{kind}-{r.episode.seed:09d}.npz"
            save_recording(path, r)
    return tmp_path


def seeds(shown):
    return [s.episode.seed for s in shown]


def test_scored_episodes_come_before_those_of_training(recorded):
    found = recorded_episodes(recorded, name="cart", trust=False)
    assert seeds(found) == [10, 11, 12]
    for path in recorded.glob("score-*"):
        path.unlink()
    assert seeds(recorded_episodes(recorded, name="cart", trust=False)) == [13, 14]


def test_episodes_are_chosen_by_merit_place_or_seed(recorded):
    found = recorded_episodes(recorded, name="cart", trust=False)
    returns = {s.episode.seed: s.episode.episode_return for s in found}
    assert returns[seeds(choose(found, "best", 1))[0]] == max(returns.values())
    assert returns[seeds(choose(found, "worst", 1))[0]] == min(returns.values())
    assert seeds(choose(found, "last", 2)) == [11, 12]
    assert seeds(choose(found, "11", 2)) == [11, 12]
    with pytest.raises(UsageError, match=r"no episode '999' is recorded; .* the seeds 10 to 12"):
        choose(found, "999", 1)


def test_kept_pictures_are_shown_where_a_game_does_not_repeat_itself():
    (recording,) = record(EnvConfig(env="tests.agents.toy:Chancy-v0"))
    config = EnvConfig(env="tests.agents.toy:Chancy-v0")
    with pytest.raises(DivergedError):
        list(play_again(recording, config, (60, 40)))
    film = [np.full((20, 30, 3), n, np.uint8) for n in range(7)]
    shown = Shown(name="chancy", recording=recording, config=config, film=lambda: iter(film))
    moments = list(shown.moments((60, 40)))
    assert [m.step for m in moments] == [0, 0, 1, 2, 3, 4, 5]
    assert [m.image[0, 0, 0] for m in moments] == list(range(7))
    assert {m.image.shape for m in moments} == {(40, 60, 3)}
    assert sum(m.reward for m in moments) == pytest.approx(recording.episode.episode_return)
    assert moments[-1].terminated


def test_a_recording_says_what_it_was_recorded_with(recorded):
    path = next(recorded.glob("*.npz"))
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
    assert about["game"] == load_recording(path).game == fingerprint("CartPole-v1")
