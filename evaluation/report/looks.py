"""How players look in figures: one colour for each policy, in all figures of a comparison."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.colors import to_hex, to_rgb

from evaluation.report.layout import GREY, fit, measure

# Okabe and Ito, "Color Universal Design" (2008): colours that colour-blind people can distinguish.
# Their yellow is left out, because it is hardly visible on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.2, 1, 1.2)), (0, (3, 1, 1, 1, 1, 1)))
_GREEDY: Any = (0, (2.5, 1.2))
_BASELINES = {"random": (GREY, "-"), "noop": ("#a3a3a3", (0, (4, 1.5)))}
_MODE = re.compile(r" \((sampled|greedy)\)$")
_SHORT = 150.0  # Points; names that are no wider keep their folders.


@dataclass(frozen=True)
class Look:
    """The look of a player: a colour, a dash pattern, and whether its marks are filled."""

    colour: str
    dash: Any
    is_filled: bool = True

    @property
    def dark(self) -> str:
        """A darker colour, for text."""
        red, green, blue = to_rgb(self.colour)
        return to_hex((0.75 * red, 0.75 * green, 0.75 * blue))


def is_baseline(name: str) -> bool:
    """Return whether a name is that of an untrained baseline."""
    return name in _BASELINES


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """Return a look for each name, and one for each policy without its mode.

    The colour depends on the policy alone; with greedy actions, lines are dashed and marks hollow.

    Args:
        names: all players of a comparison, so that each has its colour in every figure.

    Raises:
        ValueError: If there are no names.
    """
    names = set(names)
    if not names:
        raise ValueError("there is nothing to draw")
    policies = sorted({_MODE.sub("", name) for name in names - _BASELINES.keys()})
    colours = {
        policy: (COLOURS[i % len(COLOURS)], _DASHES[i // len(COLOURS) % len(_DASHES)])
        for i, policy in enumerate(policies)
    }
    looks = {policy: Look(*look) for policy, look in colours.items()}
    for name in names - _BASELINES.keys():
        colour, dash = colours[_MODE.sub("", name)]
        is_greedy = name.endswith(" (greedy)")
        looks[name] = Look(colour, _GREEDY if is_greedy else dash, not is_greedy)
    return looks | {name: Look(*look) for name, look in _BASELINES.items() if name in names}


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return shorter names: without the folder that all players share, if any name is long."""
    names = list(dict.fromkeys(names))
    paths = [name for name in names if not is_baseline(name)]
    if not paths or max(measure(fit(path, math.inf)) for path in paths) <= _SHORT:
        return {name: name for name in names}
    folders = [name.split("/")[:-1] for name in paths]
    shared = 0
    while all(len(f) > shared and f[shared] == folders[0][shared] for f in folders):
        shared += 1
    short = {name: "/".join(name.split("/")[shared:]) for name in paths}
    if any(is_baseline(name) or not name for name in short.values()):
        return {name: name for name in names}
    return {name: short.get(name, name) for name in names}


def renamed(values: Mapping[str, Any], short: Mapping[str, str]) -> dict[str, Any]:
    """Return a mapping with other names."""
    return {short[name]: value for name, value in values.items()}
