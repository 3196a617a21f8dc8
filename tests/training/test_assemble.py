"""Tests of `training.assemble`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from gymnasium import spaces

from agents import AGENTS, OBJECTIVES, AgentError, OverlappedSampler, Sampler
from agents.distributed import ALONE, Ranks
from agents.sb3 import SB3Sampler
from evaluation.protocol import bounded
from perception import ENCODERS, MEMORIES
from storage.files import FileError
from storage.run_folder import RunFolder
from training.assemble import (
    captures_gradients,
    make_agent,
    make_collector,
    make_envs,
    make_evaluation_envs,
    make_recorder,
    open_training,
)
from training.config import default_config, with_values
from training.errors import TrainingError
from training.progress import Progress
from training.self_play import Pool

CPU = torch.device("cpu")
SMALL = {"num_envs": 2, "num_groups": 1, "num_workers": 1, "agent.rollout_length": 8}
DOOM_LIKE = SimpleNamespace(
    single_observation_space=spaces.Box(0, 255, (40, 40, 1), "uint8"),
    single_action_space=spaces.Discrete(3),
    metadata={"channels": ("gray",)},
    info_keys=("HEALTH", "ENEMY_IN_VIEW", "DEPTH_0_0", "MONSTER_IN_VIEW_0"),
)


def small(env="CartPole-v1", agent="ppo", values=(), **choices):
    return with_values(default_config(env, agent, **choices), {**SMALL, **dict(values)})


# The agent.


@pytest.mark.parametrize(
    ("agent", "encoder", "memory"),
    [
        *((agent, "nature", "none") for agent in AGENTS if "recurrent" not in agent),
        ("sb3-recurrent-ppo", "nature", "lstm"),
        *(("ppo", encoder, "lstm") for encoder in ENCODERS),
        *(("ppo", "nature", memory) for memory in MEMORIES),
    ],
)
def test_an_agent_is_as_its_configuration_says(agent, encoder, memory):
    config = small("basic", agent, {"total_env_steps": 33}, encoder=encoder, memory=memory)
    made = make_agent(config, DOOM_LIKE, CPU)
    assert type(made) is AGENTS[agent][1]
    assert made.config == config.agent
    assert made.policy.config == config.perception
    assert made.total_updates == 3  # Of 16 env steps each.
    assert made.objectives == {}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_images_are_encoded_as_precisely_as_asked_for(precision):
    agent = make_agent(small("basic", values={"precision": precision}), DOOM_LIKE, CPU)
    assert agent.policy.perception.precision == getattr(torch, precision)
    # Whatever it computes with, weights are kept in float32.
    assert {weight.dtype for weight in agent.policy.parameters()} == {torch.float32}


def test_an_agent_has_the_objectives_of_its_configuration():
    values = {"objectives.variables.coef": 0.7}
    config = small("basic", values=values, objectives=tuple(OBJECTIVES))
    agent = make_agent(config, DOOM_LIKE, CPU)
    assert list(agent.objectives) == list(OBJECTIVES)
    assert agent.objectives["variables"].config.coef == 0.7
    assert agent.target_names == DOOM_LIKE.info_keys
    heads = [p for o in agent.objectives.values() for p in o.parameters() if p.requires_grad]
    assert len(agent.parameters) == len(list(agent.policy.parameters())) + len(heads)


def test_objectives_do_not_change_the_weights_that_a_policy_starts_with():
    torch.manual_seed(0)
    plain = make_agent(small("basic"), DOOM_LIKE, CPU).policy.state_dict()
    torch.manual_seed(0)
    more = make_agent(small("basic", objectives=("contrastive",)), DOOM_LIKE, CPU)
    assert all(torch.equal(more.policy.state_dict()[name], plain[name]) for name in plain)


# The collector.


@pytest.mark.parametrize(
    ("agent", "overlap", "kind"),
    [
        ("ppo", False, Sampler),
        ("ppo", True, OverlappedSampler),
        ("sb3-ppo", False, SB3Sampler),
    ],
)
def test_each_agent_has_its_collector(agent, overlap, kind):
    config = small(agent=agent, values={"overlap": overlap})
    envs = make_envs(config, 2)
    try:
        made = make_agent(config, envs, CPU)
        collector = make_collector(config, envs, made, seed=5)
        assert type(collector) is kind
        collected = collector.collect(0)
        assert collected.rollout.rewards.shape == (8, 2)
        assert collected.next_episode_seed > 5
        collector.close()
    finally:
        envs.close()


# What surrounds them.


def test_evaluation_has_environments_of_its_own_where_whole_games_are_played():
    env = "tests.envs.toy:Lives-v0"
    values = {
        "env.terminal_on_life_loss": True,
        "env.height": 40,
        "env.width": 36,
        "num_envs": 3,
        "eval_episodes": 2,
    }
    with contextlib.closing(make_evaluation_envs(small(env, values=values))) as envs:
        assert envs.num_envs == 2
        assert not envs.config.terminal_on_life_loss


def test_evaluation_draws_nothing_that_only_objectives_need():
    config = small("basic", objectives=("depth", "labels"), values={"eval_episodes": 1})
    assert config.env.depth_targets
    with contextlib.closing(make_evaluation_envs(config)) as envs:
        assert envs.config == bounded(default_config("basic").env)


def test_nothing_is_recorded_unless_asked_for(tmp_path):
    agent = make_agent(small("basic"), DOOM_LIKE, CPU)
    folder = RunFolder(tmp_path)
    assert make_recorder(small(values={"record": False}), folder, agent, Progress()) is None
    assert make_recorder(small(), folder, agent, Progress()) is not None
    shaped = small("basic", values={"env.shaping": ("damage",)})
    assert make_recorder(shaped, folder, agent, Progress()) is None


# Opening a training.


def test_a_training_is_opened_with_everything_it_needs(tmp_path):
    folder, config = RunFolder(tmp_path / "run"), small(values={"total_env_steps": 16})
    with open_training(config, folder, []) as training:
        assert folder.read_config()["num_envs"] == 2
        assert not training.is_over
        assert training.env_limit > 0
        assert training.envs.num_envs == 2
        assert training.recorder is not None
        with pytest.raises(ValueError, match="another training writes into"), folder.locked():
            pass
    with folder.locked():  # It is closed.
        pass


def test_a_finished_training_is_not_opened(tmp_path, capsys):
    folder, config = RunFolder(tmp_path / "run"), small(values={"total_env_steps": 16})
    with open_training(config, folder, []) as training:
        training.update(training.collect())
        assert training.is_over
        training.save()
    with open_training(config, folder, []) as training:
        assert training is None
    words = "is already trained for 16 env steps; raise --total-env-steps, or start over with --fr"
    assert words in capsys.readouterr().out


def test_random_matches_before_a_training_are_not_results_of_its_policy(tmp_path):
    """Matches of 15 env steps end while the speed of the environments is measured."""
    values = {"num_envs": 1, "env.time_limit": 60, "eval_envs": "none", "agent.rollout_length": 32}
    with open_training(small("players:duel", values=values), RunFolder(tmp_path), []) as training:
        pool = training.envs.rivals
        assert isinstance(pool, Pool)
        assert [record.matches for record in pool.records.values()] == [0.0]
        training.collect()
        assert sum(record.matches for record in pool.records.values()) > 0


def test_what_is_refused_changes_nothing(tmp_path):
    folder = RunFolder(tmp_path / "run")
    config = small(values={"inference": "cuda-graph", "device": "cpu"})
    with (
        pytest.raises(
            TrainingError, match=r"^--inference cuda-graph needs a GPU; use eager or comp"
        ),
        open_training(config, folder, []),
    ):
        pass
    assert not folder.path.exists()


@pytest.mark.parametrize(
    ("device", "agent", "values", "ranks", "expected"),
    [
        ("cuda", "ppo", {}, ALONE, True),
        ("cuda", "ppo", {"gradients": "eager"}, ALONE, False),
        ("cuda", "ppo", {"overlap": True}, ALONE, False),
        ("cuda", "ppo", {}, Ranks(size=2), False),
        ("cuda", "ppo", {"gradients": "cuda-graph"}, Ranks(size=2), True),
        ("cuda", "sb3-ppo", {}, ALONE, False),
        ("cpu", "ppo", {}, ALONE, False),
    ],
)
def test_gradients_are_captured_where_that_was_measured(device, agent, values, ranks, expected):
    config = small(agent=agent, values=values)
    assert captures_gradients(config, torch.device(device), ranks) == expected


def test_threads_are_as_many_as_asked_for(tmp_path):
    threads = torch.get_num_threads()
    try:
        with open_training(small(values={"num_threads": 2}), RunFolder(tmp_path), []):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_starts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("training.assemble.make_envs", pytest.fail)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "sub", Path("/proc/run"), tmp_path / ("x" * 300)):
        with (
            pytest.raises(FileError, match="nothing can be written into"),
            open_training(small(), RunFolder(path), []),
        ):
            pass
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_training_refuses_a_policy_that_could_not_be_read_again():
    wide = SimpleNamespace(
        single_observation_space=spaces.Box(-1, 1, (1,), "float32"),
        single_action_space=spaces.Discrete(2**16 + 1),
        metadata={},
        info_keys=(),
    )
    with pytest.raises(AgentError, match="choices are too many"):
        make_agent(small("CartPole-v1"), wide, CPU)
