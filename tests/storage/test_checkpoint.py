"""Tests of `storage.checkpoint`."""

from __future__ import annotations

import shutil

import pytest
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from agents import AGENTS, OUR_AGENTS, build_policy, make_objectives
from agents.objectives import VariablesConfig
from perception import MEMORIES
from storage.checkpoint import load_training, save_training
from storage.files import DamagedError, FileError
from storage.policy_file import load_policy
from tests.agents.files import rewrite
from tests.agents.synthetic import IMAGE, assert_same, make_policy, small_config, weights
from tests.storage.hostile import VALUES, leaves, put, refused_or_harmless
from tests.storage.policies import make_agent, refused, save, update

COLLECTOR_STATE = {"actions/0": torch.arange(3), "memory_state": torch.ones(2, 4, 6)}
# Each agent with one memory, and each memory with one agent.
PAIRS = [*((name, "lstm") for name in OUR_AGENTS), *(("ppo", memory) for memory in MEMORIES)]


@pytest.mark.parametrize(("name", "memory"), dict.fromkeys(PAIRS))
def test_a_training_that_was_saved_resumes_bit_for_bit(tmp_path, name, memory):
    path = tmp_path / "checkpoint" / "training.safetensors"
    whole = make_agent(name, memory=memory)
    torch.manual_seed(7)
    update(whole, range(3))
    counters = {"env_steps": 96, "best_score": None, "seconds": 1.5}
    save_training(path, whole, counters, COLLECTOR_STATE)
    update(whole, range(3, 6))
    drawn = torch.rand(5)

    resumed = make_agent(name, memory=memory, seed=1)
    torch.manual_seed(99)
    state, collector_state = load_training(path, resumed)
    assert state == counters
    assert_same(collector_state, COLLECTOR_STATE)
    assert resumed.num_updates == 3
    update(resumed, range(3, 6))
    assert torch.equal(torch.rand(5), drawn)
    assert_same_agent(resumed, whole)


def assert_same_agent(resumed, whole):
    assert_same(weights(resumed.policy), weights(whole.policy))
    assert_same(weights(resumed.reward_scaler), weights(whole.reward_scaler))
    for name, objective in whole.objectives.items():
        assert_same(weights(resumed.objectives[name]), weights(objective))
    ours, theirs = resumed.optimizer.state_dict(), whole.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for parameter, values in ours["state"].items():
        assert_same(values, theirs["state"][parameter])


def test_a_training_saved_before_its_first_update_resumes(tmp_path):
    whole, resumed = make_agent(), make_agent(seed=1)
    torch.manual_seed(7)
    save_training(tmp_path / "t", whole, {})
    update(whole, range(2))
    assert load_training(tmp_path / "t", resumed) == ({}, {})
    update(resumed, range(2))
    assert_same_agent(resumed, whole)


def with_objective(seed, names=("HEALTH", "ENEMY_IN_VIEW")):
    policy = make_policy(memory="lstm", seed=seed, normalize_obs=True)
    objectives = make_objectives(policy, {"variables": VariablesConfig()}, names)
    kind, agent = AGENTS["ppo"]
    config = kind(minibatch_size=16)
    return agent(policy, config, num_envs=4, total_updates=8, objectives=objectives)


def test_objectives_are_in_checkpoints_and_never_in_policy_files(tmp_path):
    whole, resumed = with_objective(0), with_objective(1)
    update(whole, range(2))
    save_training(tmp_path / "t", whole, {})
    with safe_open(tmp_path / "t", "pt") as file:
        names = {name for name in file.keys() if name.startswith("objectives/")}  # noqa: SIM118
    assert names == {
        f"objectives/variables/{n}" for n in whole.objectives["variables"].state_dict()
    }
    update(whole, range(2, 4))
    load_training(tmp_path / "t", resumed)
    update(resumed, range(2, 4))
    assert_same_agent(resumed, whole)
    file = load_policy(save(tmp_path / "p", whole.policy))
    assert_same(weights(file.policy), weights(whole.policy))


def test_a_checkpoint_without_an_objective_is_refused(tmp_path):
    agent = make_agent()
    update(agent, range(1))
    save_training(tmp_path / "t", agent, {})
    more = with_objective(0)
    message = refused(tmp_path / "t", load=lambda path: load_training(path, more))
    assert "belongs to another configuration" in message


@pytest.mark.parametrize(
    ("memory", "word"),
    [("none", "perception.memory"), ("gru", "perception.memory")],
)
def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, memory, word):
    agent = make_agent()
    update(agent, range(1))
    save_training(tmp_path / "t", agent, {})
    other = make_agent(memory=memory)
    message = refused(tmp_path / "t", word, load=lambda path: load_training(path, other))
    assert "belongs to another configuration" in message
    assert "--fresh" in message


def test_a_checkpoint_of_another_optimiser_is_refused(tmp_path):
    agent = make_agent("a2c")
    update(agent, range(1))
    save_training(tmp_path / "t", agent, {})
    optimiser = type(agent.optimizer).__name__
    other = make_agent("ppo")
    assert type(other.optimizer).__name__ != optimiser
    words = f"its optimiser is {optimiser}"
    refused(tmp_path / "t", words, load=lambda path: load_training(path, other))


WRONG_CHECKPOINTS = {
    "moments of one number": {
        "replace": {
            f"optimizer/{index}/{name}": torch.zeros(1, dtype=torch.int64)
            for index in range(14)
            for name in ("exp_avg", "exp_avg_sq")
        }
    },
    "moments of half precision": {"replace": {"optimizer/0/exp_avg": torch.zeros(2).half()}},
    "a step that is no scalar": {"replace": {"optimizer/0/step": torch.zeros(3)}},
    "a step of another type": {"replace": {"optimizer/0/step": torch.tensor(1)}},
    "a moment is missing": {"drop": ["optimizer/0/exp_avg"]},
    "another moment": {"replace": {"optimizer/0/exp_avg_max": torch.zeros(1)}},
    "a parameter below zero": {"replace": {"optimizer/-1/step": torch.tensor(1.0)}},
    "a parameter beyond the last": {"replace": {"optimizer/99/step": torch.tensor(1.0)}},
    "a parameter that is no number": {"replace": {"optimizer/x/step": torch.tensor(1.0)}},
    "a weight of another type": {"replace": {"policy/critic.bias": torch.zeros(1).double()}},
    "a weight of another shape": {"replace": {"policy/critic.bias": torch.zeros(2)}},
    "a weight is missing": {"drop": ["policy/critic.bias"]},
    "another weight": {"replace": {"policy/more": torch.zeros(1)}},
    "rewards of another number of environments": {
        "replace": {"reward_scaler/running": torch.zeros(5)}
    },
    "a generator of one byte": {"replace": {"generator": torch.zeros(1, dtype=torch.uint8)}},
    "a generator of zeros": {"replace": {"generator": torch.zeros(5056, dtype=torch.uint8)}},
    "no generator": {"drop": ["generator"]},
    "a tensor of its own": {"replace": {"more": torch.zeros(1)}},
}


@pytest.mark.parametrize("name", WRONG_CHECKPOINTS)
def test_a_checkpoint_holds_exactly_what_was_saved(tmp_path, name):
    agent = make_agent()
    update(agent, range(1))
    save_training(tmp_path / "t", agent, {})
    rewrite(tmp_path / "t", lambda _: None, **WRONG_CHECKPOINTS[name])
    other = make_agent(seed=1)
    before = weights(other.policy)
    refused(
        tmp_path / "t", "belongs to another configuration", load=lambda p: load_training(p, other)
    )
    assert_same(weights(other.policy), before)
    assert not other.optimizer.state


@pytest.mark.parametrize(
    "change",
    [
        {"num_updates": "x"},
        {"num_updates": -1},
        {"num_updates": 1.5},
        {"num_updates": 2**63},
        {"state": []},
        {"optimizer": 7},
    ],
    ids=str,
)
def test_a_checkpoint_with_wrong_counters_is_refused(tmp_path, change):
    save_training(tmp_path / "t", make_agent(), {})
    rewrite(tmp_path / "t", lambda description: description.update(change))
    refused(tmp_path / "t", load=lambda p: load_training(p, make_agent()))


def test_a_changed_description_is_damage(tmp_path):
    """The checkpoint before it is then used."""
    path = tmp_path / "t"
    save_training(path, make_agent(), {"env_steps": 7})
    whole = path.read_bytes()
    for old, new in ((b"num_updates", b"nun_updates"), (b"format", b"fornat"), (b": 4,", b": 5,")):
        assert old in whole
        path.write_bytes(whole.replace(old, new, 1))
        with pytest.raises(DamagedError):
            load_training(path, make_agent())


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "t"
    save_training(path, make_agent(), {})
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, "damaged", load=lambda p: load_training(p, make_agent()))
    refused(tmp_path / "no", "there is no file", load=lambda p: load_training(p, make_agent()))


def test_a_policy_is_no_checkpoint(tmp_path):
    agent = make_agent()
    refused(save(tmp_path / "p", agent.policy), load=lambda p: load_training(p, agent))


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize(
    ("name", "encoder"), [("ppo", "nature"), ("ppo", "impala"), ("a2c", "nature")]
)
def test_scrambled_statistics_of_old_checkpoints_are_reset(tmp_path, name, encoder, is_old):
    """Before gradients had the layout of their parameters, Adam kept those of other pixels."""

    def make(seed):
        torch.manual_seed(seed)
        policy = build_policy({"obs": IMAGE}, spaces.Discrete(3), small_config(encoder))
        kind, agent = AGENTS[name]
        return agent(policy, kind(), num_envs=4, total_updates=8)

    agent, path, said = make(0), tmp_path / "checkpoint.safetensors", []
    update(agent, range(2))
    save_training(path, agent, {})
    if is_old:
        rewrite(path, lambda description: description.pop("aligned_gradients"))
    resumed = make(1)
    load_training(path, resumed, said.append)
    first = "perception.encoders.obs.encoder.layers.0.weight"
    is_reset = is_old and (name, encoder) == ("ppo", "nature")
    assert len(said) == is_reset
    assert not said or (first in said[0] and "are reset" in said[0] and "\n" not in said[0])
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


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint, and its agent."""
    path, agent = tmp_path_factory.mktemp("saved") / "t", make_agent()
    save_training(path, agent, {"env_steps": 7, "returns": [1.0]})
    return path, agent


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_a_checkpoint_says_of_itself(tmp_path, saved, data):
    path, agent = saved
    shutil.copy(path, tmp_path / "t")

    def change(description):
        keys = data.draw(st.sampled_from(sorted(leaves(description), key=str)))
        put(description, keys, data.draw(st.sampled_from(VALUES)))

    rewrite(tmp_path / "t", change)
    with refused_or_harmless(FileError):
        load_training(tmp_path / "t", agent)
