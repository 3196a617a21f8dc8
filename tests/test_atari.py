"""In Atari, learning sees lives end and signs of rewards; whole games are reported."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

import evaluate
from agents import OUR_AGENTS
from agents.ppo import PPO, PPOConfig
from envs import EnvConfig, make
from evaluation.protocol import native, vector_env
from evaluation.replay.recorded import replay_recording
from perception import VectorSpec
from storage.files import decode
from storage.policy_file import About, PolicyFile
from storage.recording import load_recording
from tests.agents.synthetic import make_policy
from tests.programs import logged
from tests.test_resume import assert_same, run_and_die, run_to_the_end

# Games of three lives of six frames, which end in the middle of rollouts.
LIVES = [
    "tests.envs.toy:Lives-v0",
    "--height",
    "40",
    "--width",
    "36",
    "--num-envs",
    "4",
    "--num-workers",
    "1",
    "--noop-max",
    "3",
    "--fire-reset",
    "--terminal-on-life-loss",
    "--clip-rewards",
    "--conv-channels",
    "4",
    "4",
    "4",
    "--features",
    "16",
    "--rollout-length",
    "5",
    "--total-env-steps",
    "120",
    "--eval-episodes",
    "2",
    "--eval-every",
    "60",
]
BREAKOUT = [
    "ALE/Breakout-v5",
    "--num-envs",
    "2",
    "--num-workers",
    "1",
    "--rollout-length",
    "64",
    "--total-env-steps",
    "768",
    "--eval-episodes",
    "2",
    "--conv-channels",
    "4",
    "4",
    "4",
    "--features",
    "16",
    "--num-threads",
    "1",
    "--eval-every",
    "768",
]


# Our sampler and Stable-Baselines3's; the rest takes a minute.
@pytest.mark.parametrize(
    "agent",
    [
        pytest.param(agent, marks=[] if agent == "ppo" else pytest.mark.slow)
        for agent in (*OUR_AGENTS, "sb3-ppo")
    ],
)
def test_a_training_resumes_bit_for_bit_in_the_middle_of_games_with_lives(
    tmp_path, monkeypatch, capsys, agent
):
    arguments = [*LIVES, "--agent", agent]
    run_to_the_end(tmp_path / "whole", *arguments)
    run_and_die(monkeypatch, 2, tmp_path / "parts", *arguments)
    run_to_the_end(tmp_path / "parts", *arguments)
    assert_same(tmp_path / "parts", tmp_path / "whole")
    assert "could not be restored" not in capsys.readouterr().err


@pytest.mark.parametrize("agent", ["ppo", "sb3-ppo"])
def test_what_a_training_reports_is_of_whole_games_at_native_reward(tmp_path, agent):
    run_to_the_end(tmp_path, *LIVES, "--agent", agent)
    # FIRE and what follows it are two frames of a life, and a no-op before them of a further one.
    for name in ("training-first", "training-best", "training-worst"):
        episode = load_recording(tmp_path / "episodes" / f"{name}.npz").episode
        assert episode.terminated
        assert episode.statistics["r"] == episode.rewards.sum() == sum(range(1, 19))
        assert episode.statistics["l"] == len(episode.rewards) == len(episode.actions)
    evaluations = sorted((tmp_path / "episodes").glob("evaluation-*.npz"))
    assert evaluations
    for file in evaluations:
        assert load_recording(file).episode.episode_return == sum(range(1, 19))
    reported = set(logged(tmp_path, "rollout/ep_rew_mean")) - {None}
    assert reported == {float(sum(range(1, 19)))}


@pytest.mark.slow
def test_breakout_is_recorded_scored_and_shown_as_whole_games(tmp_path, capsys):
    run_to_the_end(tmp_path, *BREAKOUT)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["env"]["noop_max"] == 30
    files = sorted((tmp_path / "episodes").glob("*.npz"))
    assert {file.stem[:8] for file in files} == {"training", "evaluati"}
    for file in files:
        recording = load_recording(file)
        config = decode(EnvConfig, recording.env)
        assert config.terminal_on_life_loss
        # To the end of the game: rewards are compared, and where it ends.
        assert sum(1 for _ in replay_recording(recording, config, (80, 60))) > 100
    assert evaluate.main(["score", str(tmp_path), "--episodes", "2"]) == 0
    capsys.readouterr()
    played = [load_recording(f) for f in (tmp_path / "episodes").glob("score-*.npz")]
    assert played
    for recording in played:
        env = make(decode(EnvConfig, recording.env))
        env.reset(seed=recording.episode.seed)
        lives = []
        for action in recording.episode.actions:
            *_, terminated, _, info = env.step(action)
            lives.append(info["lives"])
        assert terminated
        assert {5, 4, 3, 2, 1, 0} == set(lives)
        assert info["statistics"]["r"] == recording.episode.episode_return
        env.close()


def test_policies_are_scored_by_whole_games():
    env = {"env": "ALE/Pong-v5", "terminal_on_life_loss": True, "noop_max": 30, "max_pool": True}
    policy = make_policy(specs={"obs": VectorSpec(size=2)})
    config = native(PolicyFile(policy=policy, env=env, about=About()), None, trust=False)
    assert config == EnvConfig(env="ALE/Pong-v5", noop_max=30, max_pool=True)
    cut = EnvConfig(env="CartPole-v1", terminal_on_life_loss=True)
    with vector_env(cut, 1, 1) as envs:
        assert not envs.config.terminal_on_life_loss


def test_files_from_before_these_options_mean_what_they_meant():
    names = ("max_pool", "noop_max", "fire_reset", "terminal_on_life_loss")
    fields = dataclasses.asdict(EnvConfig(env="ALE/Pong-v5", height=84, width=84))
    old = {name: value for name, value in fields.items() if name not in names}
    assert decode(EnvConfig, old) == EnvConfig(env="ALE/Pong-v5", height=84, width=84)


def test_clipped_rewards_are_signs_and_for_learning_only():
    policy = make_policy(specs={"obs": VectorSpec(size=2)})
    config = PPOConfig(clip_rewards=True, reward_scale=0.5)
    agent = PPO(policy, config, num_envs=3, total_updates=4)
    native_rewards = torch.tensor([[-21.0, 0.0, 0.25], [4.0, -0.1, 0.0]])
    kept, dones = native_rewards.clone(), torch.zeros(2, 3, dtype=torch.bool)
    expected = torch.from_numpy(0.5 * np.sign(native_rewards.numpy()))
    assert torch.equal(agent.scale(native_rewards, dones), expected)
    assert torch.equal(native_rewards, kept)
    plain = PPO(policy, PPOConfig(), num_envs=3, total_updates=4)
    assert torch.equal(plain.scale(native_rewards, dones), kept)


def test_a_lost_life_ends_what_is_learned_and_nothing_else(monkeypatch, tmp_path):
    """A lost life is terminated for the critic; the game itself continues."""
    rollouts = []
    update = PPO.update

    def watching_update(self, rollout, **options):
        rollouts.append((rollout.terminated.clone(), rollout.rewards.clone()))
        return update(self, rollout, **options)

    monkeypatch.setattr(PPO, "update", watching_update)
    run_to_the_end(tmp_path, *LIVES)
    terminated, rewards = (torch.cat(parts) for parts in zip(*rollouts, strict=True))
    assert len(terminated) == 30
    lane = rewards[:, 0].tolist()
    ends = [t for t, end in enumerate(terminated[:, 0].tolist()) if end]
    # The rewards between two ends of games are those of a whole game, which has three lives.
    whole = list(itertools.accumulate(lane))
    games = [t for t in ends if round(whole[t]) % sum(range(1, 19)) == 0]
    assert games
    assert len([t for t in ends if t <= games[-1]]) == 3 * len(games)
