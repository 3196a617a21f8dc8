"""What an action means: an agent's choices turned into the buttons of Doom.

Buttons that exclude each other (turn left, turn right) form a group, and an action presses at most
one button of each group. An agent sees either one Discrete choice among all combinations, or one
choice for each group (MultiDiscrete). Choice 0 always presses nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.config import Actions
from envs.errors import ActionError, EnvError

# The largest number of combinations for which `auto` uses a single Discrete space.
AUTO_COMBINATIONS = 24
# More combinations than this are refused: a policy head with thousands of choices learns nothing.
MAX_COMBINATIONS = 1024

# Groups in the order in which an agent sees them: name and buttons that exclude each other.
_EXCLUSIVE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("turn", ("TURN_LEFT", "TURN_RIGHT", "TURN180")),
    ("move", ("MOVE_FORWARD", "MOVE_BACKWARD")),
    ("strafe", ("MOVE_LEFT", "MOVE_RIGHT")),
    ("look", ("LOOK_UP", "LOOK_DOWN")),
    ("fly", ("MOVE_UP", "MOVE_DOWN", "LAND")),
    ("attack", ("ATTACK", "ALTATTACK", "RELOAD", "ZOOM")),
    (
        "weapon",
        (
            *(f"SELECT_WEAPON{i}" for i in range(10)),
            "SELECT_NEXT_WEAPON",
            "SELECT_PREV_WEAPON",
            "DROP_SELECTED_WEAPON",
        ),
    ),
    (
        "item",
        ("SELECT_NEXT_ITEM", "SELECT_PREV_ITEM", "ACTIVATE_SELECTED_ITEM", "DROP_SELECTED_ITEM"),
    ),
    ("stance", ("JUMP", "CROUCH")),
)

# The largest bin of each delta button: degrees per tic for turning and looking, map units per tic
# for moving (a running player moves about 16).
_DELTA_LIMITS = {
    "TURN_LEFT_RIGHT_DELTA": 10.0,
    "LOOK_UP_DOWN_DELTA": 5.0,
    "MOVE_FORWARD_BACKWARD_DELTA": 16.0,
    "MOVE_LEFT_RIGHT_DELTA": 16.0,
    "MOVE_UP_DOWN_DELTA": 16.0,
}


@dataclass(frozen=True)
class Group:
    """Choices that exclude each other; the first one presses nothing.

    Attributes:
        name: such as `turn`.
        choices: the name of each choice, and the values of the buttons it sets.
    """

    name: str
    choices: tuple[tuple[str, dict[str, float]], ...]


def button_name(button: str) -> str:
    """Return a button's name in plain words: `MOVE_LEFT` is `move left`."""
    return button.lower().replace("_", " ")


def chosen_buttons(buttons: Sequence[str], chosen: Sequence[str], scenario: str) -> tuple[str, ...]:
    """Return the buttons that an agent has, in the engine's order.

    Args:
        buttons: names of the scenario's buttons.
        chosen: names of some of them. Empty: all.
        scenario: its name, for the message.

    Raises:
        EnvError: If the scenario has no such button.
    """
    unknown = [name for name in chosen if name not in buttons]
    if unknown:
        raise EnvError(
            f"buttons: {scenario} has no button {unknown[0]}; choose from {' '.join(buttons)}"
        )
    return tuple(name for name in buttons if name in chosen or not chosen)


def group_buttons(buttons: Sequence[str], delta_bins: int) -> tuple[Group, ...]:
    """Sort buttons into groups of choices that exclude each other.

    Args:
        buttons: names of engine buttons.
        delta_bins: number of values of each delta button; odd.

    Returns:
        One group for each set of exclusive buttons, then one for each other binary button, then one
        for each delta button, whose bins are spaced quadratically: fine near zero, coarse far from
        it.
    """
    groups, remaining = [], list(buttons)
    for name, members in _EXCLUSIVE:
        present = [button for button in members if button in remaining]
        if present:
            choices = [("", {}), *((button_name(b), {b: 1.0}) for b in present)]
            groups.append(Group(name, tuple(choices)))
            remaining = [button for button in remaining if button not in present]
    for button in [b for b in remaining if not b.endswith("_DELTA")]:
        label = button_name(button)
        groups.append(Group(label, (("", {}), (label, {button: 1.0}))))
    for button in [b for b in remaining if b.endswith("_DELTA")]:
        limit, label = _DELTA_LIMITS[button], button_name(button.removesuffix("_DELTA"))
        steps = np.linspace(-1.0, 1.0, delta_bins)
        values = sorted((np.sign(steps) * steps**2 * limit).tolist(), key=abs)
        choices = [("", {}), *((f"{label} {v:+g}", {button: v}) for v in values[1:])]
        groups.append(Group(label, tuple(choices)))
    return tuple(groups)


class ActionSet:
    """An agent's actions as a Gymnasium space, and the buttons that each of them presses.

    Args:
        buttons: the engine's buttons, in the engine's order.
        actions: `combinations` for one choice among all of them, `groups` for one choice per group,
            or `auto`.
        delta_bins: number of values of each delta button; odd.

    Raises:
        EnvError: If there are too many combinations for one choice.
    """

    def __init__(self, buttons: Sequence[str], actions: Actions, delta_bins: int) -> None:
        self.groups = group_buttons(buttons, delta_bins)
        sizes = [len(group.choices) for group in self.groups]
        count = int(np.prod(sizes))
        if actions == "auto":
            actions = "combinations" if count <= AUTO_COMBINATIONS else "groups"
        if actions == "combinations" and count > MAX_COMBINATIONS:
            raise EnvError(
                f"{count} button combinations are too many for one choice, which may have at most "
                f"{MAX_COMBINATIONS}; use --actions groups"
            )
        self.space: spaces.Discrete[Any] | spaces.MultiDiscrete[Any]
        if actions == "combinations":
            self.space = spaces.Discrete(count)
            self._combinations = list(itertools.product(*(range(size) for size in sizes)))
        else:
            self.space = spaces.MultiDiscrete(sizes)
        index = {button: i for i, button in enumerate(buttons)}
        # For each group, the values of all buttons under each choice: (choices, buttons) float64.
        self._values = []
        for group in self.groups:
            values = np.zeros((len(group.choices), len(buttons)))
            for choice, (_, pressed) in enumerate(group.choices):
                for button, value in pressed.items():
                    values[choice, index[button]] = value
            self._values.append(values)
        if isinstance(self.space, spaces.Discrete):
            self._table = [self._press(combination) for combination in self._combinations]

    @property
    def names(self) -> list[list[str]]:
        """Names of the choices: one list for a Discrete space, otherwise one for each group."""
        if isinstance(self.space, spaces.Discrete):
            return [[self.describe(action) for action in range(int(self.space.n))]]
        return [[name or "-" for name, _ in group.choices] for group in self.groups]

    def buttons(self, action: Any) -> list[float]:
        """Return the value of each engine button, in the engine's order.

        Args:
            action: an element of the space.

        Raises:
            ActionError: If the action is not in the space.
        """
        if isinstance(self.space, spaces.Discrete):
            choice = int(action)
            if not 0 <= choice < len(self._table):
                raise ActionError(f"action {action} is not in {self.space}")
            return self._table[choice]
        if not self.space.contains(np.asarray(action, dtype=self.space.dtype)):
            raise ActionError(f"action {action} is not in {self.space}")
        return self._press([int(choice) for choice in action])

    def describe(self, action: Any) -> str:
        """Return an action's name, such as `move left + attack`; `-` if nothing is pressed."""
        if isinstance(self.space, spaces.Discrete):
            action = self._combinations[int(action)]
        names = [g.choices[int(c)][0] for g, c in zip(self.groups, action, strict=True)]
        return " + ".join(name for name in names if name) or "-"

    def _press(self, choices: Sequence[int]) -> list[float]:
        pressed = [v[c] for v, c in zip(self._values, choices, strict=True)]
        values: list[float] = np.sum(pressed, axis=0).tolist()
        return values
