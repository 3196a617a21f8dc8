"""Tests of `envs.doom.actions`: buttons exclude each other, and no two actions are equal."""

import contextlib

import numpy as np
import pytest
import vizdoom
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.config import EnvConfig
from envs.doom.actions import (
    AUTO_COMBINATIONS,
    MAX_COMBINATIONS,
    ActionSet,
    chosen_buttons,
    group_buttons,
)
from envs.doom.scenarios import FREEDOOM_BUTTONS, SCENARIOS
from envs.errors import EnvError
from envs.registry import make

BUTTONS = sorted(vizdoom.Button.__members__)
DELTAS = [button for button in BUTTONS if button.endswith("_DELTA")]
OPPOSITES = [
    ("TURN_LEFT", "TURN_RIGHT"),
    ("MOVE_LEFT", "MOVE_RIGHT"),
    ("MOVE_FORWARD", "MOVE_BACKWARD"),
    ("LOOK_UP", "LOOK_DOWN"),
    ("MOVE_UP", "MOVE_DOWN"),
    ("SELECT_WEAPON1", "SELECT_NEXT_WEAPON"),
    ("SELECT_NEXT_ITEM", "SELECT_PREV_ITEM"),
    ("JUMP", "CROUCH"),
]


def every_action(actions: ActionSet):
    if isinstance(actions.space, spaces.Discrete):
        return range(int(actions.space.n))
    return np.ndindex(*actions.space.nvec)


def test_basic_has_six_combinations_in_a_fixed_order():
    actions = ActionSet(SCENARIOS["basic"].buttons, "auto", 5)
    assert actions.space == spaces.Discrete(6)
    assert actions.names == [
        ["-", "attack", "move left", "move left + attack", "move right", "move right + attack"]
    ]
    assert actions.buttons(0) == [0.0, 0.0, 0.0]
    assert actions.buttons(3) == [1.0, 0.0, 1.0]
    assert actions.describe(5) == "move right + attack"


def test_groups_offer_one_choice_for_each_exclusive_set():
    actions = ActionSet(SCENARIOS["deadly_corridor"].buttons, "groups", 5)
    assert [group.name for group in actions.groups] == ["turn", "move", "strafe", "attack"]
    assert actions.space == spaces.MultiDiscrete([3, 3, 3, 2])
    assert actions.names[0] == ["-", "turn left", "turn right"]
    assert actions.buttons([2, 1, 0, 1]) == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]
    assert actions.describe([2, 1, 0, 1]) == "turn right + move forward + attack"


def test_values_follow_the_order_of_the_buttons_given():
    forwards = ActionSet(["ATTACK", "MOVE_LEFT"], "groups", 5)
    backwards = ActionSet(["MOVE_LEFT", "ATTACK"], "groups", 5)
    assert forwards.space == backwards.space
    assert forwards.buttons([1, 0]) == [0.0, 1.0]
    assert backwards.buttons([1, 0]) == [1.0, 0.0]


def test_a_button_that_excludes_no_other_has_its_own_group():
    (group,) = group_buttons(["SPEED"], 5)
    assert [name for name, _ in group.choices] == ["", "speed"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_auto_chooses_combinations_for_scenarios_with_few_of_them(name):
    actions = ActionSet(SCENARIOS[name].buttons, "auto", 5)
    count = int(np.prod([len(group.choices) for group in actions.groups]))
    assert isinstance(actions.space, spaces.Discrete) == (count <= AUTO_COMBINATIONS)


def test_auto_switches_to_groups_just_above_its_limit():
    three_groups = ["TURN_LEFT", "TURN_RIGHT", "MOVE_FORWARD", "MOVE_BACKWARD", "ATTACK"]
    assert ActionSet(three_groups, "auto", 5).space == spaces.Discrete(18)
    assert ActionSet([*three_groups, "SPEED"], "auto", 5).space == spaces.MultiDiscrete(
        [3, 3, 2, 2]
    )
    assert ActionSet([*three_groups, "SPEED"], "combinations", 5).space == spaces.Discrete(36)


def test_refuses_more_combinations_than_a_policy_can_learn():
    with pytest.raises(
        ValueError, match=r"too many for one choice, which may .* 1024; use --actions groups"
    ):
        ActionSet(FREEDOOM_BUTTONS, "combinations", 5)
    assert isinstance(ActionSet(FREEDOOM_BUTTONS, "auto", 5).space, spaces.MultiDiscrete)


@pytest.mark.parametrize("button", DELTAS)
@pytest.mark.parametrize("bins", [3, 5, 9])
def test_delta_bins_are_symmetric_and_start_with_zero(button, bins):
    actions = ActionSet([button], "combinations", bins)
    values = [actions.buttons(action)[0] for action in range(bins)]
    assert values[0] == 0.0
    assert len(set(values)) == bins
    assert sorted(values) == [-value for value in sorted(values, reverse=True)]
    assert [abs(value) for value in values] == sorted(abs(value) for value in values)


def test_delta_bins_are_finer_near_zero():
    actions = ActionSet(["TURN_LEFT_RIGHT_DELTA"], "combinations", 5)
    assert sorted(actions.buttons(action)[0] for action in range(5)) == [-10, -2.5, 0, 2.5, 10]


@pytest.mark.parametrize(
    "action", [3, np.int64(3), np.int32(3), np.uint8(3), np.array(3), np.array(3, np.int8)]
)
def test_a_discrete_action_may_be_any_integer_of_numpy(action):
    actions = ActionSet(SCENARIOS["basic"].buttons, "combinations", 5)
    assert actions.buttons(action) == [1.0, 0.0, 1.0]
    assert actions.describe(action) == "move left + attack"


@pytest.mark.parametrize("action", [(1, 0), [1, 0], np.array([1, 0]), np.array([1, 0], np.int32)])
def test_a_choice_for_each_group_may_be_any_sequence(action):
    actions = ActionSet(["ATTACK", "MOVE_LEFT"], "groups", 5)
    assert actions.buttons(action) == [0.0, 1.0]


@pytest.mark.parametrize("action", [-1, 6, np.int64(6)])
def test_refuses_a_discrete_action_outside_the_space(action):
    with pytest.raises(ValueError, match="is not in Discrete"):
        ActionSet(SCENARIOS["basic"].buttons, "combinations", 5).buttons(action)


@pytest.mark.parametrize("action", [[2, 0], [-1, 0], [0], [0, 0, 0], 0])
def test_refuses_choices_outside_the_space(action):
    with pytest.raises(ValueError, match="is not in MultiDiscrete"):
        ActionSet(["ATTACK", "MOVE_LEFT"], "groups", 5).buttons(action)


buttons_of_a_game = st.lists(st.sampled_from(BUTTONS), min_size=1, max_size=7, unique=True)


@settings(deadline=None, max_examples=60)
@given(buttons_of_a_game, st.sampled_from(["combinations", "groups"]), st.sampled_from([3, 5]))
def test_no_two_actions_press_the_same_buttons_and_none_opposite_ones(buttons, kind, bins):
    groups = group_buttons(buttons, bins)
    count = int(np.prod([len(group.choices) for group in groups]))
    if kind == "combinations" and count > MAX_COMBINATIONS:
        with pytest.raises(ValueError, match="too many"):
            ActionSet(buttons, kind, bins)
        return
    actions = ActionSet(buttons, kind, bins)
    taken = {action: actions.buttons(action) for action in every_action(actions)}
    assert len(taken) == count
    assert len({tuple(values) for values in taken.values()}) == count
    assert len({actions.describe(action) for action in taken}) == count
    first = next(iter(taken))
    assert taken[first] == [0.0] * len(buttons)
    assert actions.describe(first) == "-"
    for values in taken.values():
        pressed = {button for button, value in zip(buttons, values, strict=True) if value}
        assert not any(set(pair) <= pressed for pair in OPPOSITES)
    # Every button can be pressed.
    assert np.abs(list(taken.values())).max(axis=0).min() > 0


@given(st.permutations(sorted(SCENARIOS["deathmatch"].buttons)))
def test_sizes_of_groups_do_not_depend_on_the_order_of_the_buttons(buttons):
    sizes = sorted(len(group.choices) for group in group_buttons(buttons, 5))
    assert sizes == sorted(len(g.choices) for g in group_buttons(sorted(buttons), 5))


def test_chosen_buttons_keep_the_engines_order():
    buttons = SCENARIOS["deathmatch"].buttons
    assert chosen_buttons(buttons, (), "deathmatch") == buttons
    chosen = chosen_buttons(buttons, ("TURN_LEFT", "ATTACK"), "deathmatch")
    assert chosen == ("ATTACK", "TURN_LEFT")
    message = r"^buttons: deathmatch has no button JUMP; choose from ATTACK SPEED "
    with pytest.raises(EnvError, match=message):
        chosen_buttons(buttons, ("ATTACK", "JUMP"), "deathmatch")


@pytest.mark.parametrize("walks", [True, False])
def test_an_agent_with_fewer_buttons_plays_the_same_game(walks):
    """What it can do is what an agent with all buttons does that leaves the others alone."""
    size = {"env": "deadly_corridor", "actions": "groups", "height": 30, "width": 40}
    fewer = ("TURN_LEFT", "TURN_RIGHT", "ATTACK", *(("MOVE_FORWARD",) if walks else ()))
    with (
        contextlib.closing(make(EnvConfig(**size))) as whole,
        contextlib.closing(make(EnvConfig(buttons=fewer, **size))) as restricted,
    ):
        assert restricted.action_space.nvec.tolist() == ([3, 2, 2] if walks else [3, 2])
        assert whole.action_space.nvec.tolist() == [3, 3, 3, 2]
        restricted.action_space.seed(7)
        for seed in (7, 8):
            np.testing.assert_array_equal(restricted.reset(seed=seed)[0], whole.reset(seed=seed)[0])
            done = False
            while not done:
                action = restricted.action_space.sample()
                turn, *move, attack = action
                got = restricted.step(action)
                expected = whole.step((turn, *(move or [0]), 0, attack))
                np.testing.assert_array_equal(got[0], expected[0])
                assert got[1:] == expected[1:]
                done = got[2] or got[3]
