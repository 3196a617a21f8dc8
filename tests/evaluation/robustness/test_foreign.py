"""Tests of `evaluation.robustness.foreign`."""

from __future__ import annotations

import pytest
import torch

from envs import EnvConfig
from evaluation.robustness.foreign import InterruptedPlayer, foreign_images, foreign_steps
from tests.agents.synthetic import IMAGE, make_obs, make_policy

SPECS = {"obs": IMAGE}
COUNT, NUM_ENVS, STEPS = 4, 2, 30


def play(memory, ends=()):
    """Return the player after some env steps, with the probabilities of policy and clean twin."""
    policy = make_policy(specs=SPECS, encoder="mlp", memory=memory)
    with torch.no_grad():
        policy.actor.layer.weight.mul_(10.0)
    foreign = {"obs": make_obs(SPECS, COUNT, seed=99)["obs"]}
    player = InterruptedPlayer(policy, foreign)
    state = twin = player.initial_state(NUM_ENVS)
    seen = []
    for t in range(STEPS):
        obs = make_obs(SPECS, NUM_ENVS, seed=t)
        starts = torch.full((NUM_ENVS,), t == 0 or t in ends)
        draws = torch.full((NUM_ENVS, 1), 0.5)
        decision = player.act(obs, state, starts, draws)
        clean = policy.act(obs, twin, starts, draws)
        state, twin = decision.memory_state, clean.memory_state
        seen.append((decision.probabilities, clean.probabilities))
    return player, seen


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_frames_are_foreign_for_a_second_after_half_a_second(memory):
    player, seen = play(memory)
    distances = [float(0.5 * (ours - clean).abs().sum(-1).mean()) for ours, clean in seen]
    first, last = COUNT // 2, COUNT // 2 + COUNT
    assert distances[:first] == [0.0] * first
    assert min(distances[first:last]) > 0
    after = distances[last:]
    if memory == "none":
        assert after == [0.0] * len(after)
    else:
        assert after[0] > 10 * after[-1]
    recovery = player.recovery()
    assert recovery.during == pytest.approx(sum(distances[first:last]) / COUNT, rel=1e-4)
    assert recovery.curve == pytest.approx(after, rel=1e-4, abs=1e-7)
    assert recovery.episodes == NUM_ENVS


def test_each_episode_is_interrupted_and_counted_by_itself():
    """Episodes of 10 env steps are interrupted at 2 to 5; one of 4 is over before."""
    player, seen = play("none", ends=(10, 20, 24))
    distances = [float((ours - clean).abs().sum()) for ours, clean in seen]
    expected = {*range(2, 6), *range(12, 16), 22, 23, *range(26, 30)}
    assert {t for t, distance in enumerate(distances) if distance > 0} == expected
    recovery = player.recovery()
    assert recovery.episodes == 2 * NUM_ENVS
    assert (recovery.recovered, recovery.median_steps) == (1.0, 0.0)


def test_without_an_episode_that_lasts_nothing_is_reported():
    recovery = play("none", ends=range(0, STEPS, 3))[0].recovery()
    assert (recovery.episodes, recovery.recovered, recovery.median_steps) == (0, 0.0, None)


def test_a_second_of_another_scenario_is_recorded():
    config = EnvConfig(env="basic", height=36, width=48, frame_skip=7)
    assert foreign_steps(config) == 5
    images = foreign_images(config, ["obs"])["obs"]
    assert images.shape == (5, 36, 48, 1)
    assert images.dtype == torch.uint8
    assert not torch.equal(images[0], images[-1])
