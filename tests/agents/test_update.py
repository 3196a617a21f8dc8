"""One update against two oracles, for all registries, with policies from `build_policy`.

The oracles are Stable-Baselines3's own code, and the update in its simplest form: contiguous
weights, `backward()`, an optimiser that is neither fused nor vectorised, one thread.

Every pair of values of two parameters (agent, encoder, memory, observation) occurs in some test.
The full product is marked `slow`.
"""

from __future__ import annotations

import dataclasses
from itertools import combinations, product

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from agents import AGENTS, OUR_AGENTS, Agent, AgentConfig, Policy, build_policy
from agents.gradients import laid_out_as
from agents.rollout import minibatches
from perception import ENCODERS, MEMORIES, ImageSpec, VectorSpec
from tests.agents.synthetic import PALETTE, SENSES, make_obs, make_rollout, small_config, weights

STEPS, NUM_ENVS = 6, 4
LEARNING_RATE = 1e-3


def image(*channels):
    return ImageSpec(shape=(36, 40, len(channels)), channels=channels, palette=PALETTE)


SCREEN = image("palette")
OBSERVATIONS = {
    "palette": {"obs": SCREEN},
    "rgb": {"obs": image("red", "green", "blue")},
    "gray": {"obs": image("gray")},
    "stacked": {"obs": image("palette", "palette")},
    "extra channels": {"obs": image("palette", "depth", "labels")},
    "vectors beside": {"screen": SCREEN, "variables": VectorSpec(size=3)},
    "sound and text beside": {"screen": SCREEN, **SENSES},
    "vectors": {"obs": VectorSpec(size=3)},
}
PERCEIVED = [
    (encoder, observation)
    for observation in OBSERVATIONS
    for encoder in (["mlp"] if observation == "vectors" else ENCODERS)
]


def pairs(case):
    """Return all pairs of values of two parameters in a case, each with its position."""
    return set(combinations(enumerate(case), 2))


def pairwise(cases):
    """Return parameters of all cases; some contain every pair, and the others are marked `slow`."""
    cases = list(cases)
    missing = set().union(*map(pairs, cases))
    chosen = set()
    while missing:
        best = max(cases, key=lambda case: len(pairs(case) & missing))
        chosen.add(best)
        missing -= pairs(best)
    return [pytest.param(*case, marks=[] if case in chosen else pytest.mark.slow) for case in cases]


def flat(cases):
    """Return cases in which encoder and observation are single values."""
    return [(*rest, *perceived) for *rest, perceived in cases]


def make_policy(encoder, memory, observation, *, plain=False):
    torch.manual_seed(0)
    build = Policy if plain else build_policy
    return build(OBSERVATIONS[observation], spaces.Discrete(3), small_config(encoder, memory))


def make_agent(name, policy, **options):
    kind, learner = AGENTS[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    given = {"num_epochs": 2, "minibatch_size": STEPS * NUM_ENVS // 2, **options}
    config = kind(
        rollout_length=STEPS,
        learning_rate=LEARNING_RATE,
        **{n: v for n, v in given.items() if n in fields},
    )
    return learner(policy, config, num_envs=NUM_ENVS, total_updates=1)


def textbook_update(agent, rollout):
    """Update a policy with the loss and the estimates of its agent, but not with its `update`."""
    config, parameters = agent.config, list(agent.policy.parameters())
    if isinstance(agent.optimizer, torch.optim.Adam):
        optimizer = torch.optim.Adam(parameters, config.learning_rate, eps=1e-5, foreach=False)
    else:
        optimizer = torch.optim.RMSprop(
            parameters, config.learning_rate, alpha=0.99, eps=1e-5, foreach=False
        )
    advantages, returns = agent.estimate(rollout, agent.scale(rollout.rewards, rollout.dones))
    for _ in range(config.num_epochs):
        for batch in minibatches(
            rollout,
            advantages,
            returns,
            minibatch_size=config.minibatch_size or rollout.rewards.numel(),
            length=agent.sequence_length(len(rollout.rewards)),
        ):
            normalized = agent.normalized(batch.advantages)
            batch = dataclasses.replace(batch, advantages=normalized)
            output = agent.policy(batch.obs, batch.memory_state, batch.episode_starts)
            loss, _ = agent.loss(output, batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()


def assert_close_weights(policy, oracle, before):
    ours, theirs = policy.state_dict(), oracle.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        # In each element, a step of Adam is about as long as the learning rate.
        difference = (ours[name] - theirs[name]).abs().max()
        assert difference < 0.02 * LEARNING_RATE, f"{name} differs by {difference}"
    named = [name for name, _ in policy.named_parameters()]
    moved = [name for name in named if not ours[name].equal(before[name])]
    assert len(moved) > 0.8 * len(named)  # In a small network, some ReLUs are never active.


@pytest.mark.parametrize(
    ("name", "memory", "encoder", "observation"),
    pairwise(flat(product(OUR_AGENTS, MEMORIES, PERCEIVED))),
)
def test_an_update_equals_its_simplest_form(name, memory, encoder, observation):
    oracle = make_agent(name, make_policy(encoder, memory, observation, plain=True))
    rollout = make_rollout(oracle.policy, STEPS, NUM_ENVS, noise=0.1)
    before = weights(oracle.policy)
    torch.manual_seed(1)
    textbook_update(oracle, rollout)
    for num_parts in (1, 2):
        agent = make_agent(name, make_policy(encoder, memory, observation))
        agent._num_parts = num_parts
        torch.manual_seed(1)
        agent.update(rollout)
        assert_close_weights(agent.policy, oracle.policy, before)


@pytest.mark.parametrize(
    ("name", "encoder", "observation"), pairwise(flat(product(["ppo", "a2c"], PERCEIVED)))
)
def test_an_update_equals_stable_baselines3(name, encoder, observation):
    whole = {"num_epochs": 3, "minibatch_size": STEPS * NUM_ENVS} if name == "ppo" else {}
    whole = whole or {"num_epochs": 1, "minibatch_size": None}
    ours = make_agent(name, make_policy(encoder, "none", observation), **whole)
    theirs = make_agent(f"sb3-{name}", make_policy(encoder, "none", observation), **whole)
    theirs.policy.load_state_dict(ours.policy.state_dict())
    rollout = make_rollout(ours.policy, STEPS, NUM_ENVS, noise=0.1)
    before = weights(ours.policy)
    fill_buffer(theirs.model, rollout)
    theirs.model.train()
    ours.update(rollout)
    assert_close_weights(ours.policy, theirs.policy, before)


def fill_buffer(model, rollout):
    """Write a rollout to a model's buffer in the same way as `collect_rollouts`."""
    buffer = model.rollout_buffer
    only_cut = rollout.truncated & ~rollout.terminated
    rewards = rollout.rewards + model.gamma * rollout.final_values * only_cut
    for t in range(STEPS):
        parts = {name: part[t].numpy() for name, part in rollout.obs.items()}
        buffer.add(
            parts["obs"] if parts.keys() == {"obs"} else parts,
            rollout.actions[t].numpy().reshape(NUM_ENVS, -1),
            rewards[t].numpy(),
            rollout.episode_starts[t].numpy(),
            rollout.values[t],
            rollout.logprobs[t],
        )
    buffer.compute_returns_and_advantage(rollout.last_values, rollout.dones[-1].numpy())


class Regression(Agent[AgentConfig]):
    """Predicts rewards from observations: supervised learning with the update of every agent."""

    def estimate(self, rollout, rewards):
        return rewards, rewards

    def loss(self, output, batch):
        error = (output.values - batch.returns).square().mean()
        return error, {"loss": error}


# Averages over places, and attention, learn slowly where something is: passes that they need.
SLOW_LEARNERS = {"impoola": 60, "attention": 40}


def bright_spots(spec, num, seed):
    """Return dark screens with one bright spot each, and its horizontal position in [-1, 1]."""
    rng = np.random.default_rng(seed)
    height, width, channels = spec.shape
    frames = np.zeros((num, height, width, channels), np.uint8)
    rows, columns = rng.integers(height - 4, size=num), rng.integers(width - 4, size=num)
    for frame, row, column in zip(frames, rows, columns, strict=True):
        frame[row : row + 4, column : column + 4] = 255
    return torch.from_numpy(frames), torch.from_numpy(2.0 * columns / width - 1).float()


@pytest.mark.parametrize(
    ("encoder", "observation"),
    [
        *(
            pytest.param(e, "palette", marks=[pytest.mark.slow] if e in SLOW_LEARNERS else [])
            for e in ENCODERS
        ),
        ("nature", "rgb"),
    ],
)
def test_supervised_learning_is_as_good_as_with_plain_pytorch(encoder, observation):
    ((name, spec),) = OBSERVATIONS[observation].items()
    num, num_epochs = 320, SLOW_LEARNERS.get(encoder, 10)
    frames, where = bright_spots(spec, num, seed=0)
    config = AgentConfig(
        num_epochs=num_epochs, minibatch_size=32, learning_rate=LEARNING_RATE, max_grad_norm=1e9
    )
    losses = []
    for plain in (False, True):
        policy = make_policy(encoder, "none", observation, plain=plain)
        rollout = make_rollout(policy, 1, num)
        rollout = dataclasses.replace(rollout, obs={name: frames[None]}, rewards=where[None])
        agent = Regression(policy, config, num_envs=num, total_updates=1)
        torch.manual_seed(1)
        if plain:
            textbook_update(agent, rollout)
        else:
            agent.update(rollout)
        unseen, expected = bright_spots(spec, num, seed=1)
        with torch.no_grad():
            values = policy.value({name: unseen}, policy.initial_state(num), torch.ones(num) > 0)
        losses.append(float((values - expected).square().mean()))
    ours, theirs = losses
    assert theirs < 0.15  # The variance is 0.27.
    assert ours == pytest.approx(theirs, rel=0.25, abs=0.01)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_get_the_strides_of_their_parameter(layout):
    parameter = nn.Parameter(torch.randn(4, 3, 8, 8).to(memory_format=layout))
    for gradient in (torch.randn(4, 3, 8, 8), torch.randn(8, 8, 3, 4).permute(3, 2, 0, 1)):
        laid_out = laid_out_as(parameter, gradient)
        assert laid_out.stride() == parameter.stride()
        assert torch.equal(laid_out, gradient)
    assert laid_out_as(parameter, same := torch.randn_like(parameter)) is same


@pytest.mark.parametrize(
    ("memory", "encoder", "observation"), pairwise(flat(product(MEMORIES, PERCEIVED)))
)
def test_every_gradient_has_the_strides_of_its_parameter(memory, encoder, observation):
    for num_parts in (1, 2):
        agent = make_agent("ppo", make_policy(encoder, memory, observation))
        agent._num_parts = num_parts
        agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS))
        for name, parameter in agent.policy.named_parameters():
            assert parameter.grad.stride() == parameter.stride(), name
            statistics = agent.optimizer.state[parameter]
            assert statistics["exp_avg"].stride() == parameter.stride(), name


def test_built_policies_have_weights_in_the_memory_format_of_decoded_frames():
    policy = make_policy("nature", "none", "palette")
    part = policy.perception.encoders["obs"]
    frames = part.decoder(make_obs(policy.specs, 2)["obs"])
    assert frames.is_contiguous(memory_format=torch.channels_last)
    weight = part.encoder.layers[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    plain = make_policy("nature", "none", "palette", plain=True)
    assert plain.perception.encoders["obs"].encoder.layers[0].weight.is_contiguous()


def test_pairwise_cases_are_few_and_contain_every_pair():
    cases = list(product("abcd", "xyz", "12345"))
    chosen = [case.values for case in pairwise(cases) if not case.marks]
    assert len(chosen) < len(cases) / 2
    assert set().union(*map(pairs, chosen)) == set().union(*map(pairs, cases))
