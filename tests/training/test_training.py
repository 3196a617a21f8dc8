"""Tests of `training.training`, and of the loop in train.py."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from agents.agent import Agent
from envs import EnvError, StoppedError
from storage.checkpoint import load_training
from storage.policy_file import load_policy
from storage.run_folder import RunFolder
from tests.agents.synthetic import assert_same, weights
from tests.programs import SHARED, logged, refused
from training import assemble
from training.assemble import make_agent, make_envs, open_training
from training.callbacks import Callback
from training.config import default_config, with_values
from training.errors import TrainingError
from training.evaluation import PeriodicEvaluation
from training.resume import is_complete
from training.training import Training

SMALL = [
    "CartPole-v1",
    "--num-workers",
    "1",
    "--eval-episodes",
    "1",
    "--num-envs",
    "4",
    "--rollout-length",
    "16",
    "--total-env-steps",
    "256",
    "--eval-every",
    "256",
]
"""A training of a second or two, of four updates."""


EXCLUSIVE = """
import fcntl, os
import gymnasium as gym

class Exclusive(gym.Wrapper):
    def __init__(self):
        self.lock = os.open("sim.lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OSError("port 5005 is in use") from None
        super().__init__(gym.make("CartPole-v1"))

    def close(self):
        super().close()
        os.close(self.lock)

gym.register("Exclusive-v0", Exclusive)
"""


def config_of(**values):
    return with_values(
        default_config("CartPole-v1"),
        {
            "num_envs": 2,
            "num_workers": 1,
            "agent.rollout_length": 8,
            "eval_episodes": 1,
            "record": False,
            "total_env_steps": 64,
            **values,
        },
    )


@pytest.fixture
def opened(tmp_path):
    """Return a function that opens a training in a folder."""
    with contextlib.ExitStack() as stack:

        def open_one(signals=(), **values):
            folder = RunFolder(tmp_path / "run")
            opening = open_training(config_of(**values), folder, list(signals))
            training = stack.enter_context(opening)
            assert training is not None
            return training

        yield open_one


def step(training: Training):
    collected = training.collect()
    metrics = training.update(collected)
    training.evaluate_if_due()
    training.log(collected, metrics)
    return collected, metrics


# One update.


def test_an_update_advances_the_progress(opened):
    training = opened()
    for count in (1, 2):
        collected, metrics = step(training)
        progress = training.progress
        assert progress.env_steps == 16 * count
        assert progress.next_episode_seed == collected.next_episode_seed
        assert progress.seconds > 0
        assert math.isfinite(metrics["loss"])
        assert training.agent.num_updates == count
    assert not training.is_over
    for _ in range(2):
        step(training)
    assert training.is_over
    assert progress.episodes >= len(progress.returns) > 0


def test_callbacks_are_told_what_happens_and_may_stop_the_training(tmp_path):
    class Telling(Callback):
        def __init__(self):
            self.told = []

        def on_start(self, training):
            self.told.append(("start", training.progress.env_steps))

        def on_update(self, training, collected, metrics):
            assert metrics
            training.logger.record("rollout/own", len(self.told))
            self.told.append(("update", training.progress.env_steps))

        def on_evaluation(self, training, score):
            self.told.append(("evaluation", score.episodes))
            if training.progress.env_steps >= 32:
                training.stop()

        def on_end(self, training):
            self.told.append(("end", training.progress.env_steps))

    telling, folder = Telling(), RunFolder(tmp_path)
    config = config_of(eval_every=16, eval_episodes=3)
    train.train(config, folder, [], callbacks=[telling])
    assert telling.told == [
        ("start", 0),
        ("evaluation", 3),
        ("update", 16),
        ("evaluation", 3),
        ("update", 32),
        ("end", 32),
    ]
    assert logged(tmp_path, "rollout/own") == [2, 4]
    assert load_policy(folder.policy_file).about.env_steps == 32
    # It resumes, since it has not had all its env steps.
    train.train(config, folder, [], callbacks=[Callback()])
    assert load_policy(folder.policy_file).about.env_steps == 64


def test_a_signal_ends_a_training(opened):
    training = opened()
    assert not training.is_over
    training.signals.append(2)
    assert training.is_over


def test_an_evaluation_is_due_at_intervals_and_at_the_end(opened):
    training = opened(eval_every=40)
    while not training.is_over:
        step(training)
    # At the first update beyond 40, and at the end.
    evaluated = [value is not None for value in logged(training.folder.path, "eval/mean_reward")]
    assert evaluated == [False, False, True, True]
    assert training.progress.best_score is not None
    assert training.folder.best_file.exists()


def test_evaluations_in_the_environments_of_training_change_nothing_that_is_learned(tmp_path):
    learned = {}
    for eval_envs in ("own", "shared", "none"):
        folder = RunFolder(tmp_path / eval_envs)
        train.train(config_of(eval_envs=eval_envs, eval_every=16, eval_episodes=3), folder, [])
        learned[eval_envs] = load_policy(folder.policy_file).policy
        header = (folder.path / "progress.csv").read_text().splitlines()[0]
        assert ("eval/mean_reward" in header) == (eval_envs != "none")
        assert folder.best_file.exists() == (eval_envs != "none")
    for policy in learned.values():
        assert_same(weights(policy), weights(learned["own"]))


@pytest.mark.slow
def test_one_environment_at_a_time_is_enough(tmp_path, monkeypatch):
    # A simulator that exists once: a second one cannot be made while the first is open.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exclusive.py").write_text(EXCLUSIVE)
    values = {"num_envs": 1, "total_env_steps": 32, "eval_every": 8}
    for eval_envs in ("shared", "none"):
        config = config_of(**values, eval_envs=eval_envs, **{"env.env": "exclusive:Exclusive-v0"})
        train.train(config, RunFolder(tmp_path / eval_envs), [])
    config = config_of(**values, **{"env.env": "exclusive:Exclusive-v0"})
    with pytest.raises(EnvError, match="port 5005 is in use"):
        train.train(config, RunFolder(tmp_path / "own"), [])


@pytest.mark.parametrize(
    ("values", "folder", "expected"),
    [
        ({}, "run", "score run"),
        ({}, "a run", "score 'a run'"),
        ({"env.env": "tests.envs.toy:Endless-v0"}, "run", "score run --trust"),
    ],
    ids=str,
)
def test_the_printed_commands_can_be_pasted(
    tmp_path, monkeypatch, capsys, values, folder, expected
):
    monkeypatch.chdir(tmp_path)
    config = config_of(**values, total_env_steps=16, eval_envs="none")
    train.train(config, RunFolder(Path(folder)), [])
    said = capsys.readouterr().out
    assert f"score it:  python evaluate.py {expected}\n" in said
    assert f"replay it: python evaluate.py re{expected.replace('score', 'play')}\n" in said


def test_all_the_time_of_a_training_is_counted(opened):
    started = time.monotonic()
    training = opened(eval_every=16, checkpoint_every_s=0)
    with training.saving_at_the_end():
        began = time.monotonic()
        while not training.is_over:
            step(training)
            training.save_if_due()
        took = time.monotonic() - began
    progress = training.progress
    counted = progress.seconds + progress.other_seconds
    assert progress.other_seconds > 0
    assert 0.9 * took < counted < time.monotonic() - started


def test_an_evaluation_that_a_signal_interrupts_does_not_count(opened):
    training = opened(eval_every=16)
    training.update(training.collect())
    before = training.progress.next_evaluation
    training.signals.append(2)
    training.evaluate_if_due()
    assert training.progress.next_evaluation == before
    assert training.progress.best_score is None
    assert not training.folder.best_file.exists()


def test_the_last_evaluation_is_made_after_resuming_if_it_was_interrupted(tmp_path, monkeypatch):
    folder, config, signals = RunFolder(tmp_path / "run"), config_of(total_env_steps=16), []

    def interrupted(evaluation, signals):
        signals.append(15)
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(PeriodicEvaluation, "play", interrupted)
        train.train(config, folder, signals)
    assert signals
    assert not folder.best_file.exists()
    assert not is_complete(folder, 16)
    train.train(config, folder, [])
    assert load_policy(folder.best_file).about.env_steps == 16
    assert is_complete(folder, 16)
    (score,) = EventAccumulator(str(folder.path)).Reload().Scalars("eval/mean_reward")
    assert score.step == 16


def test_an_interrupted_evaluation_does_not_matter_where_none_is_made_any_more(opened):
    training = opened(total_env_steps=16, eval_envs="none")
    training.progress.lacks_evaluation = True
    step(training)
    assert training.is_over


def test_of_equal_policies_the_later_one_is_kept(opened, monkeypatch):
    scores = iter([5.0, 5.0, 4.0, 6.0])
    training = opened(eval_every=16)
    play = training.evaluation.play

    def play_and_score(signals):
        (episode,) = play(signals)
        episode.statistics["r"] = next(scores)
        return [episode]

    monkeypatch.setattr(training.evaluation, "play", play_and_score)
    monkeypatch.setattr(training.evaluation, "record_episodes", lambda episodes, env_steps: None)
    kept, since_best = [], []
    while not training.is_over:
        step(training)
        kept.append(load_policy(training.folder.best_file).about.env_steps)
        since_best.append(training.progress.evaluations_since_best)
    assert kept == [16, 32, 32, 64]
    assert since_best == [0, 1, 2, 0]


# Saving.


def test_checkpoints_are_written_at_intervals(opened):
    training = opened(checkpoint_every_s=3600.0)
    step(training)
    training.save_if_due()
    assert training.folder.checkpoints == []
    training._saved_at -= 3600.0
    training.save_if_due()
    training.save_if_due()
    assert [int(file.stem) for file in training.folder.checkpoints] == [16]


@pytest.mark.parametrize("error", [EnvError("engines fail"), TrainingError("nothing is finite")])
def test_what_was_learned_is_saved_if_a_training_fails(opened, error):
    training = opened()
    step(training)
    with (
        pytest.raises(TrainingError, match=f"^{error}; what was learned in 16 env steps is saved"),
        training.saving_at_the_end(),
    ):
        raise error
    (file,) = training.folder.checkpoints
    # The environments failed, so that the episodes in progress are not to be resumed.
    envs = make_envs(training.config, 2)
    with contextlib.closing(envs):
        state, collector_state = load_training(
            file, make_agent(training.config, envs, torch.device("cpu"))
        )
    assert state["env_steps"] == 16
    assert collector_state == {}


def test_what_was_learned_is_saved_after_an_error_of_ours(opened):
    training = opened()
    step(training)
    with pytest.raises(ZeroDivisionError), training.saving_at_the_end():
        raise ZeroDivisionError
    assert len(training.folder.checkpoints) == 1


def test_a_signal_is_obeyed_in_an_evaluation_that_never_ends(opened):
    training = opened(**{"env.env": "tests.envs.toy:Endless-v0"})
    training.update(training.collect())
    threading.Timer(0.3, training.signals.append, [15]).start()
    with training.saving_at_the_end():
        training.evaluate_if_due()
    assert training.is_over
    assert training.progress.best_score is None
    assert len(training.folder.checkpoints) == 1


def test_episodes_continue_after_an_interrupted_evaluation_in_the_same_environments(
    opened, monkeypatch
):
    monkeypatch.setattr(assemble, "_GRACE_S", 0.1)
    training = opened(**{"env.env": "tests.envs.toy:Endless-v0", "eval_envs": "shared"})
    training.update(training.collect())
    before = {name: part.clone() for name, part in training.collector.state().items()}
    threading.Timer(0.3, training.signals.append, [15]).start()
    training.evaluate_if_due()
    assert training.is_over
    assert_same(training.collector.state(), before)


def test_a_signal_is_obeyed_in_a_rollout_that_takes_long(opened, monkeypatch):
    monkeypatch.setattr(assemble, "_GRACE_S", 0.1)
    training = opened()
    step(training)
    training.envs._workers[0].process.send_signal(signal.SIGSTOP)
    threading.Timer(0.3, training.signals.append, [15]).start()
    started = time.monotonic()
    with training.saving_at_the_end():
        step(training)
    assert time.monotonic() - started < 60.0  # A worker that hangs is waited for much longer.
    assert training.progress.env_steps == 16
    assert len(training.folder.checkpoints) == 1


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(opened):
    training = opened()
    step(training)
    shutil.rmtree(training.folder.path / "checkpoint", ignore_errors=True)
    (training.folder.path / "checkpoint").touch()  # A file in place of the folder.
    with (
        pytest.raises(TrainingError, match=r"holds only what could be written before$"),
        training.saving_at_the_end(),
    ):
        pass


# Whole trainings.


@pytest.mark.parametrize(
    ("options", "lags"),
    [
        ([], [0, 0, 0, 0]),
        (["--overlap", "--vtrace", "--memory", "gru"], [0, 1, 1, 1]),
        (["--agent", "vtrace", "--overlap", "--num-groups", "2"], [0, 1, 1, 1]),
    ],
    ids=str,
)
def test_a_run_reports_how_old_its_policy_was_and_how_fast_it_went(tmp_path, capsys, options, lags):
    assert train.main([*SMALL, *options, "--run-dir", str(tmp_path)]) == 0
    assert logged(tmp_path, "train/policy_lag") == lags
    limit, *others = logged(tmp_path, "time/limit_env_steps_per_s")
    assert limit > 0
    assert others == [None] * 3  # It is measured once.
    lines = capsys.readouterr().out.splitlines()
    if "--overlap" in options:
        assert lines.pop().startswith("the sampler's thread: ")
    speed, compared = lines[-2:]
    words = r"[\d,]+ env steps/s while collecting and learning; all the time went to: (.*)"
    assert (match := re.fullmatch(words, speed))
    assert "evaluation" in match[1]
    words = f"environment-only limit (random actions): {limit:,.0f} env steps/s; this run reaches "
    assert compared.startswith(words)
    board = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    assert [event.value for event in board.Scalars("train/policy_lag")] == lags
    assert len(board.Scalars("time/limit_env_steps_per_s")) == 1


def test_an_overlapped_training_repeats_bit_for_bit_and_resumes(tmp_path, capsys):
    one, other = ([*SMALL, "--overlap", "--run-dir", str(tmp_path / name)] for name in "ab")
    assert train.main(one) == train.main(other) == 0
    first, again = (
        weights(load_policy(tmp_path / name / "policy.safetensors").policy) for name in "ab"
    )
    assert all(torch.equal(again[name], part) for name, part in first.items())
    assert train.main([*one, "--total-env-steps", "384"]) == 0
    # The first rollout after resuming is collected with the policy of the checkpoint.
    assert logged(tmp_path / "a", "train/policy_lag") == [0, 1, 1, 1, 0, 1]
    alone = [argument for argument in one if argument != "--overlap"]
    assert "holds a run with overlap True, not False" in refused(capsys, train, *alone)


@pytest.mark.parametrize(("flags", "without"), [([], 1), (["--overlap"], 2)])
def test_nothing_is_learned_from_rollouts_collected_without_statistics(tmp_path, flags, without):
    flags = [*SMALL, *flags, "--normalize-obs", "--run-dir", str(tmp_path)]

    def learned():
        return [loss is not None for loss in logged(tmp_path, "train/loss")]

    assert train.main(flags) == 0
    assert learned() == [update >= without for update in range(4)]
    # After resuming, all rollouts are collected with the saved statistics.
    assert train.main([*flags, "--total-env-steps", "384"]) == 0
    assert learned() == [update >= without for update in range(6)]


def test_a_run_that_stops_improving_is_over(tmp_path, capsys):
    # Nothing is learned at this rate, so that evaluations stop improving soon.
    begin = [*SMALL, "--total-env-steps", "100000", "--run-dir", str(tmp_path)]
    begin += ["--learning-rate", "1e-30", "--patience", "2", "--eval-every", "64"]
    assert train.main(begin) == 0
    assert "already trained" not in capsys.readouterr().out
    steps = load_policy(tmp_path / "policy.safetensors").about.env_steps
    assert steps < 100_000
    assert train.main(begin) == 0
    assert f"already trained for {steps:,} env steps" in capsys.readouterr().out
    assert load_policy(tmp_path / "policy.safetensors").about.env_steps == steps


def test_a_policy_without_its_checkpoint_is_not_trained_over(capsys, cartpole_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(cartpole_run, folder, ignore=shutil.ignore_patterns("checkpoint"))
    line = refused(capsys, train, "CartPole-v1", *SHARED, "--run-dir", folder)
    assert "holds a policy but no checkpoint to resume from" in line
    assert (folder / "policy.safetensors").exists()


def test_the_whole_loop_is_a_few_calls(opened, monkeypatch):
    """Each update is a call of each part, in this order."""
    training, calls = opened(), []
    for name in ("collect", "update", "evaluate_if_due", "log", "save_if_due"):
        part = getattr(Training, name)

        def recorded(self, *args, part=part, name=name):
            calls.append(name)
            return part(self, *args)

        monkeypatch.setattr(Training, name, recorded)
    train.learn(training)
    update = ["collect", "update", "evaluate_if_due", "log", "save_if_due"]
    assert calls == ["evaluate_if_due", *update * 4]
    assert [int(file.stem) for file in training.folder.checkpoints] == [64]


def test_nothing_is_saved_of_an_update_that_was_killed(opened, monkeypatch):
    class Killed(BaseException):
        pass

    def die(self, *args, **kwargs):
        raise Killed

    training = opened()
    monkeypatch.setattr(Agent, "update", die)
    with pytest.raises(Killed):
        train.learn(training)
    assert training.folder.checkpoints == []
