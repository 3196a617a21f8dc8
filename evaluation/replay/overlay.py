"""Drawing the return, and a policy's actions and values, on the pictures of an episode.

Axes: T env steps, A choices, H, W a picture in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BAR_SHARE = 0.2
_MAX_BARS = 4
# Heights of pictures, in pixels, below which a part is left out because it would be illegible.
_CURVE_FROM, _BARS_FROM = 200, 360
_DIM = 0.28
_INK, _MUTED, _RAIL = (255, 255, 255), (176, 176, 182), (88, 88, 94)
_ACCENT = (242, 157, 85)
_SHIFT = 4  # fractional bits of coordinates: curves between pixels are smooth


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What is written about a picture of an episode.

    Attributes:
        step: index of the env step that the picture belongs to.
        total: the return so far.
        action: the action of the env step, with its probability if it is a single choice.
        value: the critic's value before the env step; None without a critic.
        choices: name, probability from 0 to 1, and whether it was taken, of the likeliest choices.
    """

    step: int
    total: str
    action: str
    value: str | None
    choices: tuple[tuple[str, float, bool], ...]


def taken_choices(choices: Sequence[str], action: str) -> tuple[int, ...]:
    """Return the choices that an action consists of.

    Args:
        choices: names of the choices.
        action: its description: the name of a choice, or names of choices from several groups
            joined by ` + `.

    Returns:
        Indices into `choices`; empty if the description names no choice, as for continuous actions.
    """
    if action in choices:
        return (choices.index(action),)
    parts = set(action.split(" + "))
    return tuple(i for i, choice in enumerate(choices) if choice in parts)


class Overlay:
    """Draws the return, and the policy's actions and values, on the pictures of an episode.

    Args:
        rewards: (T,) float64, native.
        values: (T,) float32, the critic's value before each env step, in native reward units.
        probabilities: (T, A) float32, of every choice; A is 0 if actions are continuous.
        choices: A names.
        actions: T descriptions of the actions.
    """

    def __init__(
        self,
        *,
        rewards: NDArray[np.float64],
        values: NDArray[np.float32],
        probabilities: NDArray[np.float32],
        choices: Sequence[str],
        actions: Sequence[str],
    ) -> None:
        self._last = len(rewards) - 1
        self._values = np.nan_to_num(np.asarray(values, np.float64))
        self._probabilities = probabilities
        self._choices = [_words(name) for name in choices]
        self._actions = [_words(action) for action in actions]
        self._taken = [taken_choices(choices, action) for action in actions]
        self._has_values = bool(self._values.any())
        # Only the choices that are likeliest in the whole episode are drawn, so that none moves.
        likeliest = np.argsort(-probabilities.mean(axis=0), kind="stable")[:_MAX_BARS]
        self._drawn: list[int] = sorted(likeliest.tolist())
        returns = np.abs(np.cumsum(np.nan_to_num(rewards)))
        self._decimals = 0 if not np.any(rewards % 1) else 1 if returns.max() >= 10 else 2

    def caption(self, step: int, total: float) -> Caption:
        """Return what is written about a picture; the arguments are those of `draw`."""
        step = min(max(step, 0), self._last)
        return Caption(
            step=step,
            total=f"{total:,.{self._decimals}f}",
            action=self._action_text(step),
            value=f"{self._values[step]:,.2f}" if self._has_values else None,
            choices=tuple(
                (self._choices[c], float(self._probabilities[step, c]), c in self._taken[step])
                for c in self._drawn
            ),
        )

    def draw(self, image: NDArray[np.uint8], step: int, total: float) -> NDArray[np.uint8]:
        """Draw on a copy of a picture.

        Args:
            image: (H, W, 3) uint8 RGB.
            step: index of the env step that the picture belongs to.
            total: the return so far.

        Returns:
            (H, W, 3) uint8 RGB; only the lower fifth differs.
        """
        image = np.array(image, order="C")
        height, width = image.shape[:2]
        bar = image[height - round(_BAR_SHARE * height) :]
        if not bar.size:
            return image
        bar[:] = cv2.convertScaleAbs(bar, alpha=_DIM)
        step = min(max(step, 0), self._last)
        pad = max(3, round(height / 40))
        left, right = pad, width - pad
        if height >= _CURVE_FROM:
            left += self._draw_return(bar, left, pad, total) + 2 * pad
            if self._has_values:
                curve_width = width // 4
                self._draw_values(bar, right - curve_width, curve_width, pad, step)
                right -= curve_width + 2 * pad
            self._draw_action(bar, left, right, pad, step)
        else:
            self._draw_line(bar, left, right, pad, f"{total:,.{self._decimals}f}", step)
        return image

    def _draw_return(self, bar: NDArray[np.uint8], x: int, pad: int, total: float) -> int:
        """Draw the return so far in large letters, and return the width of its area in pixels."""
        height = len(bar)
        label, number = 0.13 * height, 0.30 * height
        _text(bar, "return", x, pad + label, label, _MUTED)
        text = f"{total:,.{self._decimals}f}"
        drawn = _text(bar, text, x, pad + label + 0.14 * height + number, number, _INK)
        return max(drawn, round(1.05 * height))

    def _draw_action(
        self, bar: NDArray[np.uint8], left: int, right: int, pad: int, step: int
    ) -> None:
        height = len(bar)
        with_bars = bool(self._drawn) and height >= _BAR_SHARE * _BARS_FROM
        size = (0.13 if with_bars else 0.2) * height
        baseline = pad + size if with_bars else (height + size) / 2
        action = _fitting(self._action_text(step), right - left, size)
        _text(bar, action, left, baseline, size, _INK)
        if not with_bars:
            return
        top = baseline + 0.12 * height
        pitch = (height - pad - top) / len(self._drawn)
        size = min(0.105 * height, 0.7 * pitch)
        name_width = round(0.45 * (right - left))
        start, end = left + name_width, right
        for row, choice in enumerate(self._drawn):
            taken = choice in self._taken[step]
            middle = top + (row + 0.5) * pitch
            name = _fitting(self._choices[choice], name_width - pad, size)
            _text(bar, name, left, middle + size / 2, size, _INK if taken else _MUTED)
            y, thick = round(middle), max(1, round(0.055 * height))
            upper, lower = y - thick // 2, y - thick // 2 + thick
            bar[upper:lower, start:end] = _RAIL
            filled = start + round((end - start) * float(self._probabilities[step, choice]))
            bar[upper:lower, start:filled] = _ACCENT if taken else _MUTED

    def _draw_values(self, bar: NDArray[np.uint8], x: int, width: int, pad: int, step: int) -> None:
        height = len(bar)
        size = max(0.13 * height, 6.0)
        _text(bar, "value", x, pad + size, size, _MUTED)
        text = f"{self._values[step]:,.2f}"
        end = x + width - _text_width(text, size)
        _text(bar, text, end, pad + size, size, _INK)
        low, high = float(self._values.min()), float(self._values.max())
        radius = max(2.0, 0.035 * height)
        top, bottom = pad + size + 0.12 * height + radius, height - pad - radius
        # More points than pixels would be slow and show no more; the current point is always drawn.
        stride = max(1, (self._last + 1) // max(1, 2 * width))
        steps = np.arange(step % stride, step + 1, stride)
        shares = (self._values[steps] - low) / ((high - low) or 1.0)
        across = steps / max(self._last, 1)
        points = np.stack(
            [x + radius + across * (width - 2 * radius), bottom - shares * (bottom - top)], axis=1
        )
        thickness = max(1, round(height / 96))
        fixed = np.rint(points * 2**_SHIFT).astype(np.int32)
        cv2.polylines(bar, [fixed], False, _INK, thickness, cv2.LINE_AA, _SHIFT)
        dot = fixed[-1].tolist()
        cv2.circle(bar, dot, round(radius * 2**_SHIFT), _ACCENT, -1, cv2.LINE_AA, _SHIFT)

    def _draw_line(
        self, bar: NDArray[np.uint8], left: int, right: int, pad: int, total: str, step: int
    ) -> None:
        """Draw on a small picture: the return and, if there is room, the action."""
        height = len(bar)
        size = max(0.34 * height, 5.0)
        baseline = (height + size) / 2
        drawn = _text(bar, total, left, baseline, size, _INK)
        room = right - left - drawn - 3 * pad
        action = _fitting(self._actions[step], room, size)
        _text(bar, action, right - _text_width(action, size), baseline, size, _MUTED)

    def _action_text(self, step: int) -> str:
        taken = self._taken[step]
        # The probability is shown only if the action is a single choice.
        if len(taken) != 1 or self._choices[taken[0]] != self._actions[step]:
            return self._actions[step]
        return f"{self._actions[step]}  {self._probabilities[step, taken[0]]:.0%}"


def _words(action: str) -> str:
    return "nothing" if action == "-" else action


def _scale(size: float) -> float:
    # Capital letters of this font are 22 pixels high at scale 1.
    return size / 22


def _text_width(text: str, size: float) -> int:
    return int(cv2.getTextSize(text, _FONT, _scale(size), _thickness(size))[0][0])


def _thickness(size: float) -> int:
    return 1 if size < 17 else 2


def _fitting(text: str, width: float, size: float) -> str:
    """Return a text, shortened at its end if it is wider than `width` pixels."""
    if _text_width(text, size) <= width:
        return text
    while text and _text_width(text + "..", size) > width:
        text = text[:-1]
    return f"{text.rstrip()}.." if text else ""


def _text(
    bar: NDArray[np.uint8], text: str, x: float, baseline: float, size: float, colour: Any
) -> int:
    """Draw a text with capital letters of `size` pixels, and return its width in pixels."""
    place = (round(x), round(baseline))
    cv2.putText(bar, text, place, _FONT, _scale(size), colour, _thickness(size), cv2.LINE_AA)
    return _text_width(text, size)
