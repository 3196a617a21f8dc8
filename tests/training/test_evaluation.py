"""Tests of `training.evaluation`, by reading back the recordings and TensorBoard's files."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import AGENTS, observation_specs
from envs import EnvConfig, EnvError
from envs.playback import env_steps_per_second
from envs.video import read_mp4
from evaluation.seeds import EVALUATION
from storage.recording import load_recording
from storage.run_folder import RunFolder
from tests.agents.synthetic import make_policy
from tests.agents.toy import LocalEnvs
from training import evaluation as module
from training.evaluation import PeriodicEvaluation
from training.logger import RunLogger

COUNTER = "tests.agents.toy:Counter-v0"  # It cannot be rendered.
CARTPOLE = "CartPole-v1"
CHANCY = "tests.agents.toy:Chancy-v0"  # Its rewards are not determined by the seed.


class EvaluationEnvs(LocalEnvs):
    """Environments that were restarted before, and that can be closed."""

    num_restarts, last_restart, is_closed = 3, "the engine died", False

    def __init__(self, env_id, num_envs):
        super().__init__(env_id, num_envs)
        self.metadata = self._envs[0].metadata

    def close(self):
        self.is_closed = True


@pytest.fixture
def make(tmp_path):
    """Return a function that makes an evaluation; its recordings and logs are in `tmp_path`."""
    with contextlib.ExitStack() as stack:

        def make_evaluation(env_id, *, num_episodes=3, record=True):
            envs = EvaluationEnvs(env_id, 2)
            specs = observation_specs(envs.single_observation_space, {})
            policy = make_policy(specs=specs, actions=envs.single_action_space)
            kind, agent_class = AGENTS["a2c"]
            agent = agent_class(policy, kind(), num_envs=2, total_updates=1)
            logger = RunLogger(tmp_path, total=1000, start=0)
            stack.enter_context(contextlib.closing(logger))
            return PeriodicEvaluation(
                agent,
                envs,
                EnvConfig(env=env_id),
                folder=RunFolder(tmp_path),
                logger=logger,
                num_episodes=num_episodes,
                record=record,
            )

        yield make_evaluation


def names(folder):
    return sorted(file.name for file in (folder / "episodes").glob("*"))


def gifs(evaluation, folder):
    """Return step and length of each GIF in TensorBoard's Images tab, in env steps."""
    evaluation._logger.close()
    board = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    if "eval/episode" not in board.Tags()["images"]:
        return []
    found = []
    for event in board.Images("eval/episode"):
        with Image.open(io.BytesIO(event.encoded_image_string)) as image:
            assert (image.format, image.size) == ("GIF", (160, 120))
            # Equal pictures are one frame, which is shown for longer.
            seconds = sum(frame.info["duration"] for frame in ImageSequence.Iterator(image)) / 1000
            found.append((event.step, round(seconds * env_steps_per_second(evaluation._config))))
    return found


def test_every_evaluation_plays_the_same_seeds_with_the_current_weights(make):
    evaluation = make(COUNTER, num_episodes=5)
    policy = evaluation._agent.policy
    for action in (2, 0):
        with torch.no_grad():
            policy.actor.layer.bias[:] = torch.nn.functional.one_hot(torch.tensor(action), 3) * 99.0
        episodes = evaluation.play([])
        assert [episode.seed for episode in episodes] == [EVALUATION + i for i in range(5)]
        assert all((episode.actions == action).all() for episode in episodes)


def test_actions_are_sampled(make):
    (episode, *_) = make(CARTPOLE).play([])
    assert not episode.greedy
    assert len(set(episode.actions.tolist())) == 2


def test_a_signal_stops_an_evaluation(make):
    evaluation = make(COUNTER, num_episodes=20)
    assert evaluation.play([2]) == []
    signals = []
    played = evaluation._play(evaluation.envs, 20)

    def play(*_):
        for number, episode in enumerate(played):
            if number == 4:
                signals.append(2)
            yield episode

    evaluation._play = play
    assert len(evaluation.play(signals)) == 4


def test_every_episode_is_recorded(make, tmp_path):
    evaluation = make(COUNTER)
    episodes = evaluation.play([])
    evaluation.record_episodes(episodes, 128)
    assert names(tmp_path) == [f"evaluation-0000000128-00{number}.npz" for number in range(3)]
    for name, episode in zip(names(tmp_path), episodes, strict=True):
        recording = load_recording(tmp_path / "episodes" / name)
        assert recording.env["env"] == COUNTER
        assert recording.episode.seed == episode.seed
        np.testing.assert_array_equal(recording.episode.actions, episode.actions)
    assert gifs(evaluation, tmp_path) == []


def test_without_recording_the_first_episode_is_still_shown(make, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GIF_FRAMES", 100)
    evaluation = make(CARTPOLE, record=False)
    lengths = []
    for env_steps in (64, 128):
        episodes = evaluation.play([])
        evaluation.record_episodes(episodes, env_steps)
        lengths.append(len(episodes[0].rewards))
    assert names(tmp_path) == []
    assert gifs(evaluation, tmp_path) == [(64, lengths[0]), (128, lengths[1])]


def test_a_long_episode_is_shown_in_part(make, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GIF_FRAMES", 5)
    evaluation = make(CARTPOLE)
    evaluation.record_episodes(evaluation.play([]), 64)
    assert gifs(evaluation, tmp_path) == [(64, 5)]


def test_an_episode_that_cannot_be_repeated_is_recorded_with_a_video(make, tmp_path, capsys):
    evaluation = make(CHANCY, num_episodes=1)
    for env_steps in (64, 128):
        evaluation.record_episodes(evaluation.play([]), env_steps)
    message = "pictures are taken while an episode is played"
    assert " ".join(capsys.readouterr().err.split()).count(message) == 1
    for env_steps in ("0000000064", "0000000128"):
        recording = load_recording(tmp_path / "episodes" / f"evaluation-{env_steps}-film.npz")
        video = tmp_path / "episodes" / f"evaluation-{env_steps}-film.mp4"
        assert len(list(read_mp4(video))) == len(recording.episode.rewards) + 1
    assert [step for step, _ in gifs(evaluation, tmp_path)][-2:] == [64, 128]


def test_an_episode_that_cannot_be_shown_is_recorded(make, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise EnvError("the engine died")

    monkeypatch.setattr(module, "replay_recording", fail)
    evaluation = make(CARTPOLE, num_episodes=1)
    evaluation.record_episodes(evaluation.play([]), 64)
    assert "the engine died; this episode is not shown" in capsys.readouterr().err
    assert names(tmp_path) == ["evaluation-0000000064-000.npz"]
    assert gifs(evaluation, tmp_path) == []


def test_an_episode_that_cannot_be_shown_is_reported_once(make, tmp_path, capfd):
    evaluation = make("tests.envs.toy:Unseen-v0")
    for env_steps in (64, 128):
        evaluation.record_episodes(evaluation.play([]), env_steps)
    assert len(names(tmp_path)) == 6
    said = " ".join(capfd.readouterr().err.split())
    assert said.count("render() failed: RuntimeError: there is no display (toy.py:") == 1
    assert said.count("; this episode is not shown") == 1


def test_a_signal_stops_showing_an_episode(make, tmp_path):
    evaluation = make(CARTPOLE)
    episodes = evaluation.play([])
    evaluation._stops = lambda: True
    evaluation.record_episodes(episodes, 64)
    assert gifs(evaluation, tmp_path) == []
