"""Tests of `deploy.calibration`."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy import calibration
from deploy.calibration import observed, recorded
from deploy.errors import DeployError
from envs import EnvConfig, make
from envs.fingerprint import fingerprint
from evaluation.seeds import TRAINING
from storage.policy_file import About, PolicyFile
from storage.recording import Episode, Recording, save_recording
from tests.evaluation.policies import cartpole_policy

CONFIG = EnvConfig(env="CartPole-v1")


@pytest.fixture
def file(monkeypatch):
    monkeypatch.setattr(calibration, "NUM_STEPS", 48)
    policy = cartpole_policy(0.5, "gru")
    with torch.no_grad():
        for parameter in policy.perception.memory.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return PolicyFile(policy=policy.eval(), env=asdict(CONFIG), about=About())


def record(path: Path, actions: list[int], config=CONFIG, seed=7) -> Path:
    num = len(actions)
    episode = Episode(
        seed=seed,
        greedy=False,
        actions=np.array(actions),
        rewards=np.ones(num),
        values=np.zeros(num, np.float32),
        probabilities=np.full((num, 2), 0.5, np.float32),
        terminated=False,
        gamma=0.99,
        statistics={"r": float(num), "l": float(num)},
    )
    game = fingerprint(config.env)
    save_recording(path, Recording(episode=episode, env=asdict(config), game=game))
    return path


def test_recorded_actions_are_repeated_and_the_memory_runs_along(file, tmp_path):
    actions = [0, 1, 1, 0, 1, 0]
    path = record(tmp_path / "training-first.npz", actions)
    batches = observed(file, CONFIG, [path])
    found = np.concatenate([batch["obs"] for batch in batches])
    states = np.concatenate([batch["memory_state"] for batch in batches])
    starts = np.concatenate([batch["episode_starts"] for batch in batches])
    assert len(found) == len(actions)
    assert starts.sum() == 1
    policy, state = file.policy, file.policy.initial_state(1)
    with contextlib.closing(make(CONFIG)) as env:
        obs, _ = env.reset(seed=7)
        for step, action in enumerate(actions):
            (row,) = np.flatnonzero((found == obs).all(1))  # Batches are in random order.
            np.testing.assert_allclose(states[row], state[:, 0], atol=1e-6)
            parts, start = {"obs": torch.from_numpy(obs)[None]}, torch.tensor([step == 0])
            state = policy.act(parts, state, start, None).memory_state
            obs, *_ = env.step(action)
    assert np.abs(states).max() > 0.01


def test_without_recordings_it_plays_at_seeds_of_training(file):
    batches = observed(file, CONFIG, [])
    found = np.concatenate([batch["obs"] for batch in batches])
    assert len(found) == 48
    with contextlib.closing(make(CONFIG)) as env:
        first, _ = env.reset(seed=TRAINING)
    assert (found == first).all(1).any()


def test_recordings_of_the_last_evaluation_come_first_and_those_of_scores_are_left_out(tmp_path):
    evaluated = [f"evaluation-{at:010d}-{seed:03d}.npz" for at in (900, 20) for seed in (0, 1)]
    for name in ("score-sampled-000000001.npz", "training-first.npz", *evaluated):
        (tmp_path / name).touch()
    assert [p.name for p in recorded(tmp_path)] == [*evaluated, "training-first.npz"]


def test_a_recording_of_another_environment_is_refused(file, tmp_path):
    for other, reason in (
        (EnvConfig(env="MountainCar-v0"), "env MountainCar-v0, and the policy acts with CartPole"),
        (EnvConfig(env="CartPole-v1", frame_skip=3), "frame_skip 3, and the policy acts with None"),
        (EnvConfig(env="CartPole-v1", buttons=("USE",)), "buttons .'USE',., and the policy"),
    ):
        path = record(tmp_path / "training-first.npz", [0], other)
        with pytest.raises(DeployError, match=reason):
            observed(file, CONFIG, [path])
