"""Tests of `storage.policy_file`."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from agents import AgentError
from perception import ENCODERS, MEMORIES
from storage.checkpoint import save_training
from storage.files import FileError
from storage.policy_file import check_can_be_read, load_policy
from tests.agents.files import rewrite
from tests.agents.synthetic import (
    IMAGE,
    SENSES,
    VECTOR,
    assert_same,
    make_draws,
    make_obs,
    make_policy,
    weights,
)
from tests.agents.toy import ACTION_SPACES
from tests.storage.hostile import VALUES, leaves, put, refused_or_harmless
from tests.storage.policies import ABOUT, ENV, make_agent, refused, save


def decide(policy, *, greedy):
    """Act for three steps of four environments, with a memory that is cleared in between."""
    obs, state = make_obs(policy.specs, 3, 4), policy.initial_state(4)
    draws = make_draws(policy.action_space, 3, 4)
    starts = torch.tensor([[True] * 4, [False] * 4, [False, True, False, False]])
    decisions = []
    for t in range(3):
        now = {name: part[t] for name, part in obs.items()}
        decisions.append(policy.act(now, state, starts[t], None if greedy else draws[t]))
        state = decisions[-1].memory_state
    return decisions


def assert_act_alike(left, right):
    for greedy in (True, False):
        both = zip(decide(left, greedy=greedy), decide(right, greedy=greedy), strict=True)
        for one, other in both:
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# Each encoder and memory once with discrete actions, and each kind of action once.
KINDS = [
    *((encoder, memory, "Discrete") for encoder in ENCODERS for memory in MEMORIES),
    *((next(iter(ENCODERS)), "lstm", actions) for actions in ACTION_SPACES),
]


@pytest.mark.parametrize(("encoder", "memory", "actions"), dict.fromkeys(KINDS))
def test_a_loaded_policy_acts_as_the_saved_one(tmp_path, encoder, memory, actions):
    policy = make_policy(
        specs={"screen": IMAGE, "variables": VECTOR, **SENSES},
        actions=ACTION_SPACES[actions],
        encoder=encoder,
        memory=memory,
        normalize_obs=True,
    )
    policy.observe(make_obs(policy.specs, 5, 2, seed=9))
    file = load_policy(save(tmp_path / "policy.safetensors", policy))
    assert_same(weights(file.policy), weights(policy))
    assert_act_alike(file.policy, policy)
    assert (file.env, file.about) == (ENV, ABOUT)
    assert file.policy.config == policy.config
    assert file.policy.specs == policy.specs
    assert file.policy.normalize_obs


def test_a_policy_of_a_vector_alone_is_loaded(tmp_path):
    policy = make_policy()
    assert_act_alike(load_policy(save(tmp_path / "p", policy)).policy, policy)


def test_weights_arranged_channels_last_are_saved_too(tmp_path):
    policy = make_policy(specs={"screen": IMAGE}).to(memory_format=torch.channels_last)
    assert_same(weights(load_policy(save(tmp_path / "p", policy)).policy), weights(policy))


def test_saving_overwrites(tmp_path):
    path = tmp_path / "deep" / "policy.safetensors"
    save(path, make_policy(seed=0))
    second = make_policy(seed=1)
    save(path, second)
    assert_act_alike(load_policy(path).policy, second)
    assert list(path.parent.iterdir()) == [path]


def test_a_policy_that_cannot_be_described_leaves_the_old_file(tmp_path):
    path = save(tmp_path / "p", make_policy())
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save(path, make_policy(seed=1), env={"when": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_any_safetensors_reader_can_read_a_policy(tmp_path):
    policy = make_policy(memory="lstm")
    with safe_open(save(tmp_path / "p", policy), "np") as file:
        description = json.loads(file.metadata()["doomgrad"])
        assert set(file.keys()) == set(policy.state_dict())
    assert description["env"] == ENV
    assert description["actions"] == {"kind": "discrete", "sizes": [3]}
    assert description["perception"]["memory"] == {"name": "lstm", "memory_size": 6}


def test_discrete_choices_are_restored_as_they_were(tmp_path):
    for space in (spaces.Discrete(5), spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(4)):
        policy = make_policy(actions=space)
        assert load_policy(save(tmp_path / "p", policy)).policy.action_space == space


# What is wrong with a file is one line that names it.


def nest(description, *keys, value):
    for key in keys[:-1]:
        description = description[key]
    description[keys[-1]] = value


@pytest.mark.parametrize(
    ("keys", "value", "word"),
    [
        (("perception", "colour"), 1, "there is no field 'colour'"),
        (("perception", "encoder", "depth"), 1, "there is no field 'depth'"),
        (("perception", "encoder", "name"), "resnet", "unknown encoder 'resnet'; choose from"),
        (("perception", "encoder"), "nature", ""),
        (("perception", "memory", "memory_size"), "6", "Expected `int`"),
        (("perception", "memory", "memory_size"), 0, "memory_size must be at least 1"),
        (("perception", "memory", "memory_size"), 7, "described as"),
        (("perception", "memory", "name"), "none", "there is no field 'memory_size'"),
        (("perception", "memory", "name"), ["lstm"], ""),
        (("perception", "vectors"), [], "Expected `object`"),
        (("perception",), [], ""),
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
        (("about", "env_steps"), -1, "must not be negative"),
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
    refused(path, "is not a policy of doomgrad", "critic.bias is missing")


def test_weights_that_nothing_describes_are_refused(tmp_path):
    more = {"extra.weight": torch.zeros(2)}
    path = rewrite(save(tmp_path / "p", make_policy()), lambda d: None, replace=more)
    refused(path, "is not a policy of doomgrad", "extra.weight is not described")


def test_a_checkpoint_is_no_policy(tmp_path):
    save_training(tmp_path / "t", make_agent(), {})
    refused(tmp_path / "t", "is not a policy of doomgrad")


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Policies to be spoilt: one with images and memory, and one with vectors."""
    folder = tmp_path_factory.mktemp("valid")
    specs = {"screen": IMAGE, "variables": VECTOR}
    save(folder / "images", make_policy(specs=specs, memory="lstm"))
    save(folder / "vectors", make_policy(actions=spaces.Box(-1, 1, (2,))))
    return folder


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_a_description_says(tmp_path, valid, data):
    path = tmp_path / "p"
    shutil.copy(valid / data.draw(st.sampled_from(["images", "vectors"])), path)

    def change(description):
        keys = data.draw(st.sampled_from(sorted(leaves(description), key=str)))
        put(description, keys, data.draw(st.sampled_from(VALUES)))

    rewrite(path, change)
    with refused_or_harmless(FileError):
        load_policy(path)


HUGE = {
    "an image of gigabytes": ({"shape": [16_000, 16_000, 1]}, {}, "is too large"),
    "an image of many channels": ({"shape": [2048, 1024, 64]}, {}, "is too large"),
    "layers without end": ({}, {"hidden_sizes": [1] * 100_000}, "at most 64 layers"),
    "stages without end": (
        {},
        {"encoder": {"name": "impala", "impala_channels": [1] * 30_000}},
        "at most 64 layers",
    ),
    "outputs of gigabytes": (
        {"shape": [2048, 2048, 1]},
        {
            "encoder": {
                "name": "nature",
                "conv_channels": [1024, 1, 1],
                "conv_strides": [1, 4, 1],
            }
        },
        "a layer computes",
    ),
    "blocks without end": (
        {},
        {"encoder": {"name": "attention", "token_layers": 2**20}},
        "at most 64",
    ),
    "layers of memory without end": (
        {},
        {"memory": {"name": "attention", "memory_layers": 2**20, "memory_window": 1}},
        "at most 64",
    ),
    "channels without end": ({"shape": [1, 1, 2**40]}, {}, "is too large"),
    "parts without end": ("parts", {}, "observations have 20,000 parts"),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_small_file_may_not_ask_for_much_memory_or_time(tmp_path, name):
    spec, perception, word = HUGE[name]
    path = save(tmp_path / "p", make_policy(specs={"screen": IMAGE}))

    def change(description):
        if spec == "parts":
            description["specs"] = {f"a{n}": {"size": 1} for n in range(20_000)}
        elif spec:
            description["specs"]["screen"] = {"shape": [*spec["shape"]], "channels": []}
            description["specs"]["screen"]["palette"] = []
        if "hidden_sizes" in perception:
            description["perception"]["vectors"] = perception
        elif perception:
            description["perception"] |= perception

    rewrite(path, change)
    with refused_or_harmless():
        refused(path, word)


def test_a_loaded_policy_does_not_change_with_its_file(tmp_path):
    path = save(tmp_path / "p", policy := make_policy())
    file = load_policy(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert_same(weights(file.policy), weights(policy))


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_policy_could_be_read_again(encoder, memory):
    specs = {"obs": IMAGE, "variables": VECTOR}
    check_can_be_read(make_policy(specs=specs, encoder=encoder, memory=memory))


def test_a_policy_that_could_not_be_read_again_is_refused_before_its_training():
    policy = make_policy(specs={"obs": IMAGE})
    # A head of the user's own, of which the file's description does not tell.
    policy.actor = nn.Sequential(nn.Linear(16, 8), policy.actor)
    policy.actor.sizes = policy.actor[1].sizes
    with pytest.raises(AgentError, match=r"could not be read: actor\.\S+ is "):
        check_can_be_read(policy)
