"""Tests of `agents.baselines`."""

from __future__ import annotations

import pytest
import torch

from agents import NoopPlayer, RandomPlayer
from agents.distributions import num_draws
from tests.agents.synthetic import make_draws
from tests.agents.toy import ACTION_SPACES

STARTS = torch.ones(3000, dtype=torch.bool)


def decide(player, seed=0):
    state = player.initial_state(len(STARTS))
    draws = make_draws(player.action_space, len(STARTS), seed=seed)
    return player.act({}, state, STARTS, draws)


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_random_actions_are_uniform_and_valid(name):
    space = ACTION_SPACES[name]
    decision = decide(RandomPlayer(space))
    actions = decision.actions
    assert actions.shape == (3000, *(space.shape or ()))
    assert all(space.contains(action) for action in actions.numpy())
    if name == "Box":
        assert float(actions.mean()) == pytest.approx(0, abs=0.05)
        assert float(actions.std()) == pytest.approx(3**-0.5, abs=0.03)
    else:
        columns = actions.reshape(3000, -1).T
        sizes = {"Discrete": [3], "MultiDiscrete": [2, 3], "MultiBinary": [2, 2]}[name]
        for column, size in zip(columns, sizes, strict=True):
            frequencies = column.bincount(minlength=size) / 3000
            torch.testing.assert_close(
                frequencies, torch.full((size,), 1 / size), rtol=0, atol=0.05
            )


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_random_actions_repeat_with_the_draws(name):
    player = RandomPlayer(ACTION_SPACES[name])
    assert torch.equal(decide(player).actions, decide(player).actions)
    assert not torch.equal(decide(player).actions, decide(player, seed=1).actions)


@pytest.mark.parametrize("name", ACTION_SPACES)
@pytest.mark.parametrize("draw", [0.0, 1 - 2.0**-24], ids=["least", "most"])
def test_the_smallest_and_the_largest_draw_result_in_valid_actions(name, draw):
    space = ACTION_SPACES[name]
    player = RandomPlayer(space)
    draws = torch.full((1, num_draws(space)), draw)
    actions = player.act({}, player.initial_state(1), STARTS[:1], draws).actions
    assert space.contains(actions[0].numpy())


def test_a_random_player_cannot_be_greedy():
    player = RandomPlayer(ACTION_SPACES["Discrete"])
    with pytest.raises(ValueError, match="cannot be greedy"):
        player.act({}, player.initial_state(2), STARTS[:2], None)


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_the_noop_player_takes_action_0(name):
    space = ACTION_SPACES[name]
    actions = decide(NoopPlayer(space)).actions
    assert actions.shape == (3000, *(space.shape or ()))
    assert not actions.any()
