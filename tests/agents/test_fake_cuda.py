"""The code for a GPU, run without one: devices, copies and readings, for all registries."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from gymnasium import spaces

from agents import OUR_AGENTS, Sampler, build_policy
from agents.rollout import minibatches
from perception import ENCODERS, MEMORIES, PerceptionConfig, VectorSpec
from tests.agents.fake_cuda import CUDA, fake_gpu, needs_compiler, register_guard, to_fake_gpu
from tests.agents.synthetic import IMAGE, SMALL_LAYERS, make_rollout, moved
from tests.agents.toy import ACTION_SPACES, LocalEnvs

pytestmark = needs_compiler
STEPS, NUM_ENVS, NUM_GROUPS = 5, 4, 2
SPECS = {"screen": IMAGE, "variables": VectorSpec(size=3)}
# Each entry of each registry.
ENTRIES = [
    *((name, "nature", memory, torch.bfloat16) for name in OUR_AGENTS for memory in MEMORIES),
    *(("ppo", encoder, "lstm", torch.float32) for encoder in ENCODERS),
]


@pytest.fixture(autouse=True, scope="module")
def _guard(tmp_path_factory):
    register_guard(tmp_path_factory.mktemp("guard"))


@pytest.fixture(autouse=True)
def _no_streams(monkeypatch):
    """A GPU that is none has no streams to put work into."""
    monkeypatch.setattr("agents.sampler.stream_of", lambda device: None)


def make_policy(specs=SPECS, actions=None, encoder="nature", memory="none", **options):
    config = PerceptionConfig(encoder=encoder, memory=memory, memory_size=6, layers=SMALL_LAYERS)
    return build_policy(specs, actions or spaces.Discrete(3), config, **options)


def make_agent(name, policy, **options):
    kind, learner = OUR_AGENTS[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    config = kind(**{key: value for key, value in options.items() if key in fields})
    return learner(policy, config, num_envs=NUM_ENVS, total_updates=1)


@pytest.mark.parametrize(("name", "encoder", "memory", "precision"), ENTRIES)
def test_an_update_stays_on_the_gpu(name, encoder, memory, precision):
    policy = make_policy(encoder=encoder, memory=memory, normalize_obs=True, precision=precision)
    played = make_rollout(policy, STEPS, NUM_ENVS)
    with fake_gpu() as transfers:
        to_fake_gpu(policy)
        for options in ({}, {"num_epochs": 3, "minibatch_size": 10}):
            agent = make_agent(name, policy, normalize_returns=True, normalize_obs=True, **options)
            rollout = moved(played, CUDA)
            agent._statistics_since = 0
            agent.update(rollout)  # Optimisers set themselves up.
            transfers.count.clear()
            agent.update(rollout)
            tensors = [*policy.parameters(), *(p.grad for p in policy.parameters())]
            # PyTorch counts RMSProp's steps on the CPU.
            states = agent.optimizer.state.values()
            tensors += [state[key] for state in states for key in state if key != "step"]
            assert {tensor.device.type for tensor in tensors} == {"cuda"}
            assert transfers.count["down"] == 0
            # Whether the rollout is finite, all metrics, and for V-trace where it was truncated.
            assert transfers.count["read"] == 2 + (name == "vtrace")
            # The order of each epoch.
            assert transfers.count["up"] <= agent.config.num_epochs + (name == "vtrace")


@pytest.mark.parametrize(
    ("actions", "memory"),
    sorted({*((a, "none") for a in ACTION_SPACES), *(("Discrete", m) for m in MEMORIES)}),
)
def test_an_env_step_is_one_copy_up_and_one_down(actions, memory):
    counts = []
    for rollout_length in (STEPS, STEPS + 3):
        envs = LocalEnvs(f"tests.agents.toy:Identity{actions}-v0", NUM_ENVS, NUM_GROUPS)
        specs = {"obs": VectorSpec(size=envs.single_observation_space.shape[0])}
        policy = make_policy(specs, envs.single_action_space, memory=memory)
        with fake_gpu() as transfers:
            to_fake_gpu(policy)
            sampler = Sampler(
                envs, policy, rollout_length=rollout_length, seed=0, inference="eager"
            )
            sampler.collect()
            transfers.count.clear()
            rollout = sampler.collect().rollout
            assert {t.device.type for t in rollout.tensors().values()} == {"cuda"}
            # Observations at which episodes were truncated go up too, where there were any.
            transfers.count["up"] -= len(rollout.final_steps) > 0
            counts.append(dict(transfers.count))
    once, longer = counts
    for way in ("up", "down"):
        assert longer[way] - once[way] == 3 * NUM_GROUPS, way
        assert once[way] - STEPS * NUM_GROUPS <= 12, way  # once a rollout
    assert "read" not in once


@pytest.mark.parametrize(("name", "encoder", "memory"), [entry[:3] for entry in ENTRIES])
def test_backward_stays_on_the_device(monkeypatch, name, encoder, memory):
    # It is not defined for the meta device.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    policy = make_policy(encoder=encoder, memory=memory, normalize_obs=True)
    played = make_rollout(policy, STEPS, NUM_ENVS)
    agent = make_agent(name, policy.to("meta"))
    rollout = moved(played, torch.device("meta"))
    (batch,) = minibatches(
        rollout,
        rollout.rewards,
        rollout.rewards,
        minibatch_size=STEPS * NUM_ENVS,
        recurrent=policy.is_recurrent,
    )
    gradients, metrics = agent._gradients(batch, 1.0)
    assert {t.device.type for t in (*gradients, *metrics.values())} == {"meta"}
    assert [g.shape for g in gradients] == [p.shape for p in policy.parameters()]
