"""Tests of `agents.checkpoint`."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from agents import AGENTS, OUR_AGENTS, build_policy
from agents.checkpoint import (
    About,
    FileError,
    decode,
    load_policy,
    load_training,
    save_policy,
    save_training,
    write_atomically,
)
from agents.ppo import PPOConfig
from envs import EnvConfig
from evaluation.episodes import load_recording
from perception import EncoderConfig, ImageSpec, PerceptionConfig
from tests.agents.files import rewrite
from tests.agents.synthetic import (
    IMAGE,
    SMALL_LAYERS,
    VECTOR,
    assert_same,
    make_draws,
    make_obs,
    make_policy,
    make_rollout,
    weights,
)
from tests.agents.toy import ACTION_SPACES

ROOT = Path(__file__).parents[2]
ENV, ABOUT = {"env": "basic", "height": 60}, About(agent="ppo", seed=3, env_steps=1000)


def save(path, policy, *, env=ENV, about=ABOUT):
    save_policy(path, policy, env=env, about=about)
    return path


def judge(policy, *, greedy):
    """Act on three steps of four environments, with a memory that is cleared in between."""
    obs, state = make_obs(policy.specs, 3, 4), policy.initial_state(4)
    draws = make_draws(policy.action_space, 3, 4)
    starts = torch.tensor([[True] * 4, [False] * 4, [False, True, False, False]])
    decisions = []
    for t in range(3):
        now = {name: part[t] for name, part in obs.items()}
        decisions.append(policy.act(now, state, starts[t], None if greedy else draws[t]))
        state = decisions[-1].memory_state
    return decisions


def assert_play_alike(left, right):
    for greedy in (True, False):
        for one, other in zip(judge(left, greedy=greedy), judge(right, greedy=greedy), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("actions", ACTION_SPACES)
@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
@pytest.mark.parametrize("encoder", ["nature", "impala", "mlp"])
def test_a_loaded_policy_plays_as_the_saved_one(tmp_path, encoder, memory, actions):
    policy = make_policy(
        specs={"screen": IMAGE, "variables": VECTOR},
        actions=ACTION_SPACES[actions],
        encoder=encoder,
        memory=memory,
        normalize_obs=True,
    )
    policy.observe(make_obs(policy.specs, 5, 2, seed=9))
    file = load_policy(save(tmp_path / "policy.safetensors", policy))
    assert_same(weights(file.policy), weights(policy))
    assert_play_alike(file.policy, policy)
    assert (file.env, file.about) == (ENV, ABOUT)
    assert file.policy.config == policy.config
    assert file.policy.specs == policy.specs
    assert file.policy.normalize_obs


def test_a_policy_of_a_vector_alone_is_loaded(tmp_path):
    policy = make_policy()
    assert_play_alike(load_policy(save(tmp_path / "p", policy)).policy, policy)


def test_weights_arranged_channels_last_are_saved_too(tmp_path):
    policy = make_policy(specs={"screen": IMAGE}).to(memory_format=torch.channels_last)
    assert_same(weights(load_policy(save(tmp_path / "p", policy)).policy), weights(policy))


def test_saving_overwrites_and_leaves_nothing_else_behind(tmp_path):
    path = tmp_path / "deep" / "policy.safetensors"
    save(path, make_policy(seed=0))
    second = make_policy(seed=1)
    save(path, second)
    assert_play_alike(load_policy(path).policy, second)
    assert list(path.parent.iterdir()) == [path]


def test_any_safetensors_reader_can_read_a_policy(tmp_path):
    policy = make_policy()
    with safe_open(save(tmp_path / "p", policy), "np") as file:
        metadata = json.loads(file.metadata()["doomgrad"])
        assert set(file.keys()) == set(policy.state_dict())
    assert metadata["env"] == ENV
    assert metadata["actions"] == {"kind": "discrete", "sizes": [3]}


# What is wrong with a file is one line that names it.


def refused(path, *words, load=load_policy):
    with pytest.raises(FileError) as error:
        load(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    for word in words:
        assert word in message
    return message


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "nothing", "there is no file at")
    refused(tmp_path)  # a folder


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, 1000, -1])
def test_a_truncated_file_is_refused(tmp_path, size):
    path = save(tmp_path / "p", make_policy())
    path.write_bytes(path.read_bytes()[:size])
    refused(path, "damaged")


@pytest.mark.parametrize(
    "content",
    [b"garbage", b"\x00" * 100, b"\xff" * 100, b"PK\x03\x04", b'{"json": 1}\n' * 50],
    ids=["words", "zeros", "ones", "zip", "json"],
)
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "p"
    path.write_bytes(content)
    refused(path, "damaged, or no safetensors file")


def test_a_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "p"
    torch.save({"weights": torch.zeros(3)}, path)
    refused(path, "damaged, or no safetensors file", "may hold pickled code")


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"format": "pt"}, {"doomgrad": "no json"}, {"doomgrad": "[]"}, {"doomgrad": "{}"}],
    ids=str,
)
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    path = tmp_path / "p"
    save_file({"weights": torch.zeros(3)}, path, metadata)
    refused(path, "was not written by doomgrad")


def test_a_file_of_another_format_is_refused(tmp_path):
    path = rewrite(save(tmp_path / "p", make_policy()), lambda d: d.update(format=2))
    refused(path, "is of format 2; this program reads 3")


def nest(description, *keys, value):
    for key in keys[:-1]:
        description = description[key]
    description[keys[-1]] = value


@pytest.mark.parametrize(
    ("keys", "value", "word"),
    [
        (("perception", "colour"), 1, "there is no field 'colour'"),
        (("perception", "layers", "depth"), 1, "there is no field 'depth'"),
        (("perception", "memory_size"), "6", "Expected `int`"),
        (("perception", "memory_size"), 0, "memory_size must be at least 1"),
        (("perception", "memory_size"), 7, "described as"),
        (("perception", "encoder"), "resnet", "resnet"),
        (("perception",), [], "Expected `object`"),
        (("specs", "obs"), {"size": 3, "unit": "m"}, "there is no field 'unit'"),
        (("specs", "obs"), {"size": 4}, "described as"),
        (("specs", "obs"), 3, ""),
        (("specs",), None, ""),
        (("actions",), {"kind": "discrete", "sizes": [4]}, "actor"),
        (("actions",), {"kind": "discrete", "sizes": []}, ""),
        (("actions",), {"kind": "discrete", "sizes": [0]}, ""),
        (("actions",), {"kind": "discrete", "sizes": "three"}, ""),
        (("actions",), {"kind": "dance", "sizes": [3]}, "unknown kind of actions 'dance'"),
        (("actions",), None, ""),
        (("env",), 7, ""),
        (("about",), None, ""),
        (("about", "gamma"), 2, "out of range"),
        (("about", "value_unit"), 0, "out of range"),
        (("about", "env_steps"), -1, "cannot be"),
        (("about", "seconds"), "long", ""),
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_is_refused(tmp_path, keys, value, word):
    path = save(tmp_path / "p", make_policy(memory="lstm"))
    rewrite(path, lambda d: nest(d, *keys, value=value))
    refused(path, "is not a policy of doomgrad", word)


@pytest.mark.parametrize("key", ["env", "about", "perception", "specs", "actions", "normalize_obs"])
def test_a_description_that_lacks_a_part_is_refused(tmp_path, key):
    path = rewrite(save(tmp_path / "p", make_policy()), lambda d: d.pop(key))
    refused(path, key)


def test_a_policy_that_observes_nothing_is_refused(tmp_path):
    path = save(tmp_path / "p", policy := make_policy())
    seeing = [name for name in policy.state_dict() if "encoders" in name]
    none = {"actor.layer.weight": torch.zeros(3, 0), "critic.weight": torch.zeros(1, 0)}
    rewrite(path, lambda d: d.update(specs={}), drop=seeing, replace=none)
    with pytest.raises(FileError, match="it observes nothing"):
        load_policy(path)


def test_missing_weights_are_refused(tmp_path):
    path = rewrite(save(tmp_path / "p", make_policy()), lambda d: None, drop={"critic.bias"})
    refused(path, "is not a policy of doomgrad")


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_flipped_byte_is_refused_or_harmless(tmp_path, data):
    policy = make_policy()
    path = save(tmp_path / "p", policy)
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        loaded = load_policy(path)
    except FileError:
        return
    assert_same(weights(loaded.policy), weights(policy))


# Strict decoding.


@pytest.mark.parametrize("kind", [EnvConfig, PerceptionConfig, PPOConfig, ImageSpec])
def test_what_went_through_json_is_the_same(kind):
    config = kind(shape=(3, 4, 1), channels=("gray",)) if kind is ImageSpec else kind()
    assert decode(kind, json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (PerceptionConfig, {"encodr": "mlp"}, "there is no field 'encodr'"),
        (PerceptionConfig, {"layers": {"feature": 3}}, "there is no field 'feature'"),
        (PerceptionConfig, {"encoder": "cnn"}, "cnn"),
        (PerceptionConfig, {"memory_size": 1.5}, "Expected `int`, got `float`"),
        (PerceptionConfig, {"memory_size": True}, "Expected `int`, got `bool`"),
        (PerceptionConfig, {"memory_size": None}, "Expected `int`, got `null`"),
        (PerceptionConfig, {"memory_size": -1}, "memory_size must be at least 1, got -1"),
        (PerceptionConfig, [], "Expected `object`, got `array`"),
        (EncoderConfig, {"conv_channels": [1, 2]}, "length 3"),
        (EncoderConfig, {"hidden_sizes": ["64"]}, "Expected `int`, got `str`"),
        (EnvConfig, {"frame_skip": "4"}, "Expected `int | null`, got `str`"),
        (EnvConfig, {"variables": 1}, "Expected `bool`, got `int`"),
        (ImageSpec, {}, "missing required field `shape`"),
        (PPOConfig, {"gamma": 2}, "gamma must be between 0 and 1"),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused(kind, data, message):
    with pytest.raises(FileError) as error:
        decode(kind, data)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# Replacing a file.


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_policy_that_cannot_be_described_leaves_the_old_file(tmp_path):
    path = save(tmp_path / "p", make_policy())
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save(path, make_policy(seed=1), env={"when": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_cannot_begin_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    # A folder where the temporary file is to go: it cannot be opened for writing.
    (tmp_path / f".file.{os.getpid()}.tmp").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


# Going on with a training.


def make_agent(name="ppo", *, memory="lstm", seed=0, **options):
    kind, learner = AGENTS[name]
    policy = make_policy(memory=memory, seed=seed, normalize_obs=True)
    config = kind(
        **{"minibatch_size": 16, "normalize_returns": True, "anneal_learning_rate": True}, **options
    )
    return learner(policy, config, num_envs=4, total_updates=8)


def update(agent, updates):
    """Learn from random rollouts, with rewards drawn by torch's own generator."""
    for index in updates:
        rollout = make_rollout(agent.policy, 8, 4, seed=index)
        agent.update(dataclasses.replace(rollout, rewards=rollout.rewards + torch.rand(8, 4)))


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize(
    ("name", "encoder"), [("ppo", "nature"), ("ppo", "impala"), ("a2c", "nature")]
)
def test_scrambled_statistics_of_old_checkpoints_start_anew(tmp_path, name, encoder, is_old):
    """Before gradients had the layout of their parameters, Adam kept those of other pixels."""

    def make(seed):
        torch.manual_seed(seed)
        config = PerceptionConfig(encoder=encoder, layers=SMALL_LAYERS)
        policy = build_policy({"obs": IMAGE}, spaces.Discrete(3), config)
        kind, learner = AGENTS[name]
        return learner(policy, kind(), num_envs=4, total_updates=8)

    agent, path, said = make(0), tmp_path / "checkpoint.safetensors", []
    update(agent, range(2))
    save_training(path, agent, {})
    if is_old:
        rewrite(path, lambda description: description.pop("aligned_gradients"))
    resumed = make(1)
    load_training(path, resumed, said.append)
    first = "perception.encoders.obs.1.layers.0.weight"
    is_reset = is_old and (name, encoder) == ("ppo", "nature")
    assert len(said) == is_reset
    assert not said or (first in said[0] and "start anew" in said[0] and "\n" not in said[0])
    weights_before = dict(agent.policy.named_parameters())
    for parameter, weight in resumed.policy.named_parameters():
        for key, value in resumed.optimizer.state[weight].items():
            if is_reset and parameter == first:
                assert not value.any()
            else:
                expected = agent.optimizer.state[weights_before[parameter]][key]
                assert torch.equal(value, expected), (parameter, key)
    update(resumed, range(2, 3))
    assert all(weight.isfinite().all() for weight in resumed.policy.parameters())


SAMPLER_STATE = {"actions/0": torch.arange(3), "memory_state": torch.ones(2, 4, 6)}


@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
@pytest.mark.parametrize("name", OUR_AGENTS)
def test_a_training_that_was_saved_goes_on_bit_for_bit(tmp_path, name, memory):
    path = tmp_path / "checkpoint" / "training.safetensors"
    whole = make_agent(name, memory=memory)
    torch.manual_seed(7)
    update(whole, range(3))
    counters = {"env_steps": 96, "best_score": None, "seconds": 1.5}
    save_training(path, whole, counters, SAMPLER_STATE)
    update(whole, range(3, 6))
    drawn = torch.rand(5)

    resumed = make_agent(name, memory=memory, seed=1)
    torch.manual_seed(99)
    state, sampler_state = load_training(path, resumed)
    assert state == {"env_steps": 96, "best_score": None, "seconds": 1.5}
    assert_same(sampler_state, SAMPLER_STATE)
    assert resumed.num_updates == 3
    update(resumed, range(3, 6))
    assert torch.equal(torch.rand(5), drawn)
    assert_same(weights(resumed.policy), weights(whole.policy))
    assert_same(weights(resumed.reward_scaler), weights(whole.reward_scaler))
    ours, theirs = resumed.optimizer.state_dict(), whole.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for parameter, values in ours["state"].items():
        assert_same(values, theirs["state"][parameter])


def test_a_training_saved_before_its_first_update_goes_on(tmp_path):
    whole, resumed = make_agent(), make_agent(seed=1)
    torch.manual_seed(7)
    save_training(tmp_path / "t", whole, {})
    update(whole, range(2))
    assert load_training(tmp_path / "t", resumed) == ({}, {})
    update(resumed, range(2))
    assert_same(weights(resumed.policy), weights(whole.policy))


@pytest.mark.parametrize(
    ("memory", "word"),
    [("none", "size mismatch for critic"), ("gru", "size mismatch for perception.memory")],
)
def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, memory, word):
    agent = make_agent()
    update(agent, range(1))
    save_training(tmp_path / "t", agent, {})
    stranger = make_agent(memory=memory)
    message = refused(tmp_path / "t", word, load=lambda path: load_training(path, stranger))
    assert "belongs to another configuration" in message
    assert "--fresh" in message


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "t"
    save_training(path, make_agent(), {})
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, "damaged", load=lambda p: load_training(p, make_agent()))
    refused(tmp_path / "no", "there is no file", load=lambda p: load_training(p, make_agent()))


def test_a_policy_is_no_checkpoint_and_a_checkpoint_no_policy(tmp_path):
    agent = make_agent()
    refused(save(tmp_path / "p", agent.policy), load=lambda p: load_training(p, agent))
    save_training(tmp_path / "t", agent, {})
    refused(tmp_path / "t", "is not a policy of doomgrad")


# Nothing anywhere unpickles.

SOURCES = sorted(
    file
    for place in ("agents", "envs", "perception", "train.py", "evaluate.py")
    for file in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
)
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def dangers(tree):
    """List calls and imports by which a file could run code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in UNPICKLERS:
                yield node.module
            yield from (a.name for a in node.names if a.name in UNPICKLERS)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            allowed = any(
                k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords
            )
            numpy_load = called in ("np.load", "numpy.load") and not allowed
            if numpy_load or called in ("eval", "exec", "compile", "__import__", "torch.load"):
                yield called


def test_no_source_unpickles_or_evaluates():
    assert len(SOURCES) > 20
    found = {str(f): list(dangers(ast.parse(f.read_text()))) for f in SOURCES}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "from torch.serialization import pickle",
        "torch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
    ],
)
def test_the_search_for_unpicklers_finds_them(source):
    assert list(dangers(ast.parse(source)))


def test_recorded_arrays_cannot_hold_pickles(tmp_path):
    path = tmp_path / "episode.npz"
    np.savez(path, about=np.array({"seed": 1}, dtype=object), actions=np.zeros(1))
    refused(path, load=load_recording)


def test_discrete_choices_are_restored_as_they_were(tmp_path):
    for space in (spaces.Discrete(5), spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(4)):
        policy = make_policy(actions=space)
        assert load_policy(save(tmp_path / "p", policy)).policy.action_space == space
