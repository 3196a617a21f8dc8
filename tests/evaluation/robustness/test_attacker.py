"""Tests of `evaluation.robustness.attacker`."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces

from agents.attacks import fgsm
from evaluation.robustness import attacker as module
from evaluation.robustness.attacker import ATTACKS, Attack, Attacker, Moment
from perception import MEMORIES
from tests.agents.synthetic import IMAGE, VECTOR, make_obs, make_policy

SPECS = {"screen": IMAGE, "variables": VECTOR}
NUM_ENVS, STEPS = 3, 4
RECURRENT = [name for name in MEMORIES if name != "none"]


def make_decided_policy(seed=2, **options):
    """Return a policy whose actions are far from equally likely."""
    policy = make_policy(specs=SPECS, encoder="mlp", seed=seed, **options)
    with torch.no_grad():
        policy.actor.layer.weight.mul_(20.0)
    return policy


def moments(policy, steps=STEPS):
    """Return what a policy sees, with episodes that start at steps 0 and 2 in the first lane."""
    state = policy.initial_state(NUM_ENVS)
    for t in range(steps):
        starts = torch.tensor([t in (0, 2), t == 0, t == 0])
        obs = policy.perception.pixels(make_obs(SPECS, NUM_ENVS, seed=t))
        yield Moment(obs, state, starts)
        state = policy.act(obs, state, starts, None).memory_state


def unrolled(policy, seen, change, target):
    """Return the loss of each lane, step by step and lane by lane, without batches or windows."""
    losses = []
    for lane in range(NUM_ENVS):
        started = [t for t, moment in enumerate(seen) if moment.episode_starts[lane]]
        first = max(started[-1] if started else 0, 0)
        state = seen[first].memory_state[:, lane : lane + 1]
        total = 0.0
        for moment in seen[first:]:
            starts = moment.episode_starts[None, lane : lane + 1]
            part = {name: each[None, lane : lane + 1] for name, each in moment.obs.items()}
            with torch.no_grad():
                before = policy(part, moment.memory_state[:, lane : lane + 1], starts)
                action = before.distribution.mode()
            part["screen"] = (part["screen"] + change[lane]).clamp(0, 1)
            output = policy(part, state, starts)
            state = output.memory_state
            loss = output.distribution.log_prob(action) if target == "action" else output.values
            total = total - loss[0, 0]
        losses.append(total)
    return torch.stack(losses)


@pytest.mark.parametrize("target", ["action", "value"])
@pytest.mark.parametrize("memory", RECURRENT)
def test_gradients_through_the_memory_equal_those_of_a_plain_twin(memory, target):
    policy = make_decided_policy(memory=memory)
    attack = Attack(text="", method=module._fgsm, target=target, through_memory=True)
    attacker = Attacker(attack, policy, 0.01, seed=0)
    seen = list(moments(policy))
    for moment in seen:
        loss = attacker._loss(moment)
    # Not at 0: there, the most likely action has hardly a gradient.
    change = 0.02 * torch.randn(seen[-1].obs["screen"].shape)
    change = ((seen[-1].obs["screen"] + change).clamp(0, 1) - seen[-1].obs["screen"]).detach()
    gradients = []
    for compute in (
        lambda change: loss({"screen": seen[-1].obs["screen"] + change}),
        lambda change: unrolled(policy, seen, change, target),
    ):
        leaf = change.clone().requires_grad_()
        gradients.append(torch.autograd.grad(compute(leaf).sum(), leaf)[0])
    assert gradients[1].abs().max() > 0
    scale = float(gradients[1].abs().max())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4 * scale)
    # A positive control: the gradient of the last step alone is another one.
    single = Attacker(Attack(text="", method=module._fgsm, target=target), policy, 0.01, seed=0)
    last = single._loss(seen[-1])
    leaf = change.clone().requires_grad_()
    alone = torch.autograd.grad(last({"screen": seen[-1].obs["screen"] + leaf}).sum(), leaf)[0]
    assert (alone - gradients[0])[1:].abs().max() > 0.1 * scale


def test_a_window_is_not_longer_than_the_memory_is_followed(monkeypatch):
    monkeypatch.setattr(module, "MEMORY_STEPS", 2)
    policy = make_decided_policy(memory="lstm")
    attacker = Attacker(ATTACKS["pgd10_memory"], policy, 0.01, seed=0)
    for moment in moments(policy):
        attacker(moment)
    assert len(attacker._window) == 2


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("pgd40", "search")])
def test_every_attack_stays_within_epsilon_and_leaves_vectors_alone(name):
    attack = ATTACKS[name]
    policy = make_decided_policy(memory="lstm" if attack.through_memory else "none")
    other = make_decided_policy(seed=1) if attack.from_another else policy
    for epsilon in (0.0, 2 / 255):
        attacker = Attacker(attack, other, epsilon, seed=0, own_memory=attack.from_another)
        for moment in moments(policy, 2):
            changed = attacker(moment)
            assert torch.equal(changed["variables"], moment.obs["variables"])
            difference = (changed["screen"] - moment.obs["screen"]).abs().max()
            assert difference <= epsilon + 1e-7
            assert (difference > 0) == (epsilon > 0)
            assert 0 <= changed["screen"].min() <= changed["screen"].max() <= 1


@pytest.mark.parametrize(("name", "target"), [("fgsm", "action"), ("pgd10_value", "value")])
def test_an_attack_lowers_its_target(name, target):
    policy = make_decided_policy()
    (moment,) = moments(policy, 1)
    changed = Attacker(ATTACKS[name], policy, 4 / 255, seed=0)(moment)
    before, after = (
        policy.act(obs, moment.memory_state, moment.episode_starts, None)
        for obs in (moment.obs, changed)
    )
    if target == "value":
        assert (after.values < before.values).all()
    else:
        most_likely = before.actions[:, None]
        fell = after.probabilities.gather(1, most_likely) < before.probabilities.max(1)[0][:, None]
        assert fell.all()


def test_continuous_actions_are_attacked_from_a_random_start():
    """At the clean pixels, the most likely action has no gradient: plain FGSM would do nothing."""
    policy = make_policy(specs=SPECS, actions=spaces.Box(-1, 1, (2,)))
    with torch.no_grad():
        policy.actor.layer.weight.mul_(20.0)
    (moment,) = moments(policy, 1)
    changed = Attacker(ATTACKS["fgsm"], policy, 4 / 255, seed=0)(moment)
    before, after = (
        policy.act(obs, moment.memory_state, moment.episode_starts, None).actions
        for obs in (moment.obs, changed)
    )
    assert (before - after).abs().max() > 0.01


def test_a_policy_that_looks_on_has_a_memory_of_its_own():
    policy, other = make_decided_policy(), make_decided_policy(memory="lstm", seed=1)
    attacker = Attacker(ATTACKS["transfer"], other, 1 / 255, seed=0, own_memory=True)
    state = other.initial_state(NUM_ENVS)
    for moment in moments(policy):
        changed = attacker(moment)
        state = other.act(changed, state, moment.episode_starts, None).memory_state
        assert torch.equal(attacker._own_state, state)
    assert state.abs().max() > 0


def test_the_loss_of_another_policy_is_not_asked_of_the_one_that_plays():
    policy, other = make_decided_policy(), make_decided_policy(seed=1)
    (moment,) = moments(policy, 1)
    attack = Attack(text="", method=module._fgsm, from_another=True)
    changed = Attacker(attack, other, 1 / 255, seed=0, own_memory=True)(moment)
    obs = {name: part[None] for name, part in moment.obs.items()}
    first = other(obs, other.initial_state(NUM_ENVS), moment.episode_starts[None])
    actions = first.distribution.mode()

    def loss(pixels):
        state, starts = other.initial_state(NUM_ENVS), moment.episode_starts[None]
        output = other({**obs, "screen": pixels["screen"][None]}, state, starts)
        return -output.distribution.log_prob(actions)[0]

    expected = fgsm(loss, {"screen": moment.obs["screen"]}, 1 / 255)
    assert torch.equal(changed["screen"], expected["screen"])
