"""Tests of `training.config`."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch

import train
from agents import AGENTS, OBJECTIVES, OUR_AGENTS, SB3_AGENTS
from agents.ppo import PPOConfig
from perception import ENCODERS, MEMORIES
from perception.lookup import UnknownNameError
from storage.run_folder import RunFolder
from training.config import (
    TrainConfig,
    default_config,
    dotted,
    dotted_fields,
    part_types,
    with_values,
)
from training.errors import TrainingError

ALL = tuple(OBJECTIVES)


def is_resumable(metadata):
    return metadata.get("resumable", False)


# Making configurations.


@pytest.mark.parametrize("agent", AGENTS)
def test_there_is_a_default_of_everything(agent):
    subsets = [(), *((name,) for name in ALL), ALL]
    for encoder, memory, objectives in itertools.product(ENCODERS, MEMORIES, subsets):
        config = default_config(
            "basic", agent, encoder=encoder, memory=memory, objectives=objectives
        )
        assert config.agent_name == agent
        assert config.perception.encoder_name == encoder
        assert config.perception.memory_name == memory
        assert tuple(config.objective_configs) == objectives
        types = part_types("basic", agent, encoder, memory, objectives)
        parts = (config.agent, config.perception.encoder, config.perception.memory)
        assert tuple(map(type, parts)) == types[:3]
        assert {f.name for f in dataclasses.fields(types[3])} == set(objectives)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"agent": "dqn"}, "agent"),
        ({"encoder": "resnet"}, "encoder"),
        ({"memory": "elephant"}, "memory"),
        ({"objectives": ("variables", "luck")}, "objective"),
    ],
)
def test_unknown_names_are_refused_with_those_that_exist(arguments, kind):
    with pytest.raises(UnknownNameError, match=rf"^unknown {kind} '\w+'; choose from \w+, \w+"):
        default_config("basic", **arguments)


def test_an_objective_is_named_once():
    with pytest.raises(TrainingError, match=r"^--objectives names variables twice; name it once$"):
        default_config("basic", objectives=("variables", "contrastive", "variables"))


def test_the_presets_encoder_and_memory_are_those_that_are_not_given():
    assert default_config("maps:maze").perception.memory_name == "lstm"
    assert default_config("maps:maze", memory="none").perception.memory_name == "none"
    assert default_config("CartPole-v1").perception.encoder_name == "nature"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"patience": 3, "eval_envs": "none"}, "eval_envs none makes none"),
        ({"eval_envs": "shared", "num_groups": 2}, "with eval_envs shared, add --num-groups 1"),
        (
            {"eval_envs": "shared", "num_groups": 1, "overlap": True},
            "with eval_envs shared, leave out --overlap",
        ),
        (
            {"eval_envs": "shared", "num_groups": 1, "num_ranks": 2},
            "with eval_envs shared, leave out torchrun",
        ),
        (
            {"autotune": True, "teacher": Path("zoo/basic")},
            "autotune measures without a teacher: leave out one of the two",
        ),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"num_envs": 3, "num_groups": 2}, "num_envs .3. must be a multiple of num_groups .2."),
        ({"hang_after_s": 0.0}, "hang_after_s must be greater than 0"),
        ({"seed": -1}, "seed must be between 0 and"),
        ({"overlap": True, "gradients": "cuda-graph"}, "cuda-graph does not work with overlap"),
        ({"agent.gamma": 2.0}, "gamma must be between 0 and 1"),
        ({"env.height": 0}, "height must be at least 1"),
    ],
    ids=str,
)
def test_ranges_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        with_values(default_config("basic"), values)


def test_evaluations_do_not_share_environments_with_shaped_rewards():
    config = with_values(default_config("basic"), {"num_groups": 1, "env.shaping": ("damage",)})
    with pytest.raises(ValueError, match="with eval_envs shared, leave out --shaping"):
        with_values(config, {"eval_envs": "shared"})


@pytest.mark.parametrize("agent", SB3_AGENTS)
@pytest.mark.parametrize("flag", ["overlap", "autotune"])
def test_agents_with_a_collector_of_their_own_refuse_what_it_lacks(agent, flag):
    with pytest.raises(ValueError, match=f"{agent} has its own collector: leave out --overlap"):
        with_values(default_config("basic", agent), {flag: True})


@pytest.mark.parametrize("agent", SB3_AGENTS)
@pytest.mark.parametrize("values", [{"inference": "compiled"}, {"gradients": "cuda-graph"}])
def test_agents_of_stable_baselines3_act_and_learn_as_it_does(agent, values):
    with pytest.raises(ValueError, match=f"is not for {agent}; use eager"):
        with_values(default_config("basic", agent), values)


def test_derived_values():
    config = with_values(default_config("freedoom2:MAP01", "a2c"), {"seed": 3, "num_envs": 6})
    assert config.env_steps_per_update == 6 * config.agent.rollout_length
    assert config.evaluation_interval == config.total_env_steps // 10
    assert with_values(config, {"eval_every": 7}).evaluation_interval == 7
    assert with_values(config, {"total_env_steps": 3}).evaluation_interval == 1
    assert config.default_run_dir == Path("runs/freedoom2-map01/a2c-seed3")


# Dotted names.


def test_fields_are_replaced_by_their_dotted_names():
    config = default_config("basic", objectives=ALL, memory="lstm")
    values = {
        "env.height": 48,
        "perception.encoder.features": 32,
        "perception.memory.memory_size": 16,
        "perception.vectors.hidden_sizes": (5,),
        "agent.gamma": 0.5,
        "objectives.variables.coef": 0.25,
        "num_envs": 32,
    }
    changed = with_values(config, values)
    found = dotted(changed.as_dict())
    assert {name: found[name] for name in values} == {
        **values,
        "perception.vectors.hidden_sizes": [5],
    }
    others = dotted(config.as_dict())
    assert {n: v for n, v in found.items() if n not in values} == {
        n: v for n, v in others.items() if n not in values
    }
    assert with_values(config, {}) == config


def test_names_that_a_configuration_lacks_are_passed_over():
    config = default_config("basic", "a2c")
    assert with_values(config, {"agent.clip_coef": 0.3, "luck": 1, "env.luck": 2}) == config
    # A field is not found without the name of its part.
    assert with_values(config, {"gamma": 0.3}) == config


def test_parts_are_replaced_in_any_dataclass():
    assert with_values(PPOConfig(), {"target_kl": 0.1}).target_kl == 0.1
    assert with_values(PPOConfig(target_kl=0.1), {"target_kl": None}).target_kl is None


def test_dotted_names_are_those_of_the_nested_dictionaries():
    nested = {"a": {"b": {"c": (1, 2)}, "d": Path("x/y")}, "e": None, "f": {}}
    assert dotted(nested) == {"a.b.c": [1, 2], "a.d": "x/y", "e": None}


@pytest.mark.parametrize("agent", AGENTS)
def test_a_configuration_goes_through_json_as_it_is(agent, tmp_path):
    config = default_config("basic", agent, memory="gru", objectives=ALL)
    folder = RunFolder(tmp_path)
    folder.write_config(config.as_dict(), torch.float32)
    assert dotted(folder.read_config()) == dotted(config.as_dict())
    stored = json.loads(json.dumps(config.as_dict(), default=str))
    assert stored["agent"]["name"] == agent
    assert stored["perception"]["memory"] == {"name": "gru", "memory_size": 256}
    assert stored["objectives"].keys() == set(ALL)


# What may differ when a run is resumed.

RESUMABLE = {
    "env.files",
    "import_",
    "total_env_steps",
    "eval_envs",
    "num_workers",
    "device",
    "precision",
    "inference",
    "gradients",
    "num_threads",
    "autotune",
    "run_dir",
    "fresh",
    "eval_every",
    "eval_episodes",
    "record",
    "track",
    "patience",
    "checkpoint_every_s",
    "hang_after_s",
    "max_restarts",
}


def everything():
    return default_config("basic", "ppo", memory="lstm", objectives=ALL)


def test_exactly_these_fields_are_resumable():
    assert set(dotted_fields(everything(), is_resumable)) == RESUMABLE


def test_what_compares_trials_of_a_search_is_said_on_the_field():
    def compares_trials(metadata):
        return metadata.get("compares_trials", False)

    found = set(dotted_fields(everything(), compares_trials))
    assert found == {"total_env_steps", "eval_every", "eval_episodes", "patience"}
    assert found < RESUMABLE


# The command line.


def read(*arguments):
    return train.read_command_line([*map(str, arguments)])


@pytest.mark.parametrize("objectives", [(), ALL])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("agent", OUR_AGENTS)
def test_names_of_all_flags_differ(agent, encoder, memory, objectives):
    """Flags carry no prefix, except those of objectives."""
    config = default_config("basic", agent, encoder=encoder, memory=memory, objectives=objectives)
    names = list(dotted_fields(config, lambda metadata: True))
    flags = [
        n.removeprefix("objectives.") if "objectives." in n else n.split(".")[-1] for n in names
    ]
    assert len(set(flags)) == len(flags)


COMMANDS = [
    [],
    ["--agent", "a2c", "--encoder", "impala", "--impala-channels", "3", "4"],
    ["--encoder", "mlp", "--mlp-sizes", "7", "--memory", "gru", "--memory-size", "5"],
    ["--objectives", "variables", "contrastive", "--variables.names", "HEALTH", "AMMO2"],
    ["--objectives", "contrastive", "--contrastive.coef", "0.5", "--contrastive.max-shift", "2"],
    ["--learning-rate", "1e-05", "--no-anneal-learning-rate", "--target-kl", "0.1"],
    ["--minibatch-size", "None", "--hidden-sizes", "--extra-channels", "depth", "labels"],
    ["--run-dir", "some where", "--fresh", "--no-record", "--seed", "7", "--num-groups", "4"],
    ["--agent", "sb3-recurrent-ppo"],
    ["--tune", "--trials", "3", "--search", "learning_rate", "gamma"],
]


@pytest.mark.parametrize("flags", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("env", ["basic", "CartPole-v1", "my_way_home"])
def test_a_command_line_is_made_that_means_the_same(env, flags):
    command = read(env, *flags)
    again = read(*train.command_line_of(command))
    # The options of a search are not part of a training.
    assert dataclasses.replace(again, tuning=command.tuning) == command


def test_only_what_differs_from_the_preset_is_on_a_command_line():
    assert train.command_line_of(read("basic")) == ["basic", "--agent", "ppo"]
    made = train.command_line_of(read("basic", "--num-envs", "8"), always=("seed",))
    assert made == ["basic", "--agent", "ppo", "--num-envs", "8", "--seed", "0"]


def test_the_last_of_two_flags_counts():
    command = read("basic", "--agent", "a2c", "--agent=ppo", "--memory", "lstm", "--memory", "gru")
    assert command.training.agent_name == "ppo"
    assert command.training.perception.memory_name == "gru"


def test_a_configuration_is_made_from_its_class_too():
    config = TrainConfig(agent=PPOConfig())
    assert config.env.env == "basic"
    assert config.objective_configs == {}
