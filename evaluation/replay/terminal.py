"""Showing episodes in a terminal: pictures as half blocks, and what the policy does as text.

Axes: H, W a picture.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from envs.video import half_blocks
from evaluation.replay.live import Show
from evaluation.replay.overlay import Caption
from processes.streams import printable

_BESIDE = 26  # Columns of the text beside a picture, if the terminal is wide enough.
_GAP = 2
_LEAST = 16  # Columns of the smallest picture.
_BAR = 8  # Characters of the bar of a probability.


def is_terminal() -> bool:
    """Return whether the output can show pictures: a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def terminal(names: Sequence[str], *, text: bool) -> Iterator[Show]:
    """Prepare the terminal, which is left as it was found; only Ctrl-C ends the show.

    Args:
        names: name of each episode's policy.
        text: whether return, action, probabilities and value are written.
    """
    last = os.terminal_size((0, 0))

    def show(images: Sequence[NDArray[np.uint8]], captions: Sequence[Caption]) -> bool:
        nonlocal last
        size = os.get_terminal_size()
        # The cursor is moved instead of clearing the screen, because that would flicker. After a
        # change of the size, what was drawn before is in other places.
        start = "\x1b[2J\x1b[H" if size != last else "\x1b[H"
        last = size
        shown = list(zip(names, captions, strict=True)) if text else []
        sys.stdout.write(start + screen(images, shown, size) + "\n\x1b[J")
        sys.stdout.flush()
        return True

    sys.stdout.write("\x1b[?25l")  # Hides the cursor.
    try:
        yield show
    finally:
        # An interruption may have come in the middle of an escape sequence: CAN ends it.
        sys.stdout.write("\x18\x1b[0m\x1b[?25h\n")
        sys.stdout.flush()


def screen(
    images: Sequence[NDArray[np.uint8]],
    captions: Sequence[tuple[str, Caption]],
    size: os.terminal_size,
) -> str:
    """Return the pictures of episodes side by side, with their captions beside or below them.

    Args:
        images: (H, W, 3) uint8 RGB, all of one size.
        captions: name and caption of each episode; empty if nothing is to be written.
        size: columns and lines of the terminal. The last line stays empty.
    """
    height, width = images[0].shape[:2]
    ratio = len(images) * width / height  # Half a character is about as wide as it is high.
    lines = max(1, size.lines - 1)
    beside = len(images) == 1 and bool(captions) and size.columns >= _BESIDE + _GAP + 2 * _LEAST
    if beside:
        columns = min(size.columns - _BESIDE - _GAP, int(2 * lines * ratio))
        picture = half_blocks(images[0], columns).split("\n")
        panel = _panel(*captions[0], size.columns - columns - _GAP)[:lines]
        picture += [" " * columns] * (len(panel) - len(picture))
        panel += [""] * (len(picture) - len(panel))
        rows = [f"{a}{' ' * _GAP}{b}" for a, b in zip(picture, panel, strict=True)]
    else:
        each = size.columns // max(1, len(captions))
        panels = [_panel(name, caption, each - 1, bars=False) for name, caption in captions]
        below = [
            " ".join(line.ljust(each - 1) for line in row) for row in zip(*panels, strict=True)
        ]
        room = max(1, lines - len(below))
        columns = max(_LEAST, min(size.columns, int(2 * room * ratio)))
        picture = half_blocks(np.hstack(list(images)), columns).split("\n")[:room]
        rows = [*picture, *below]
    # To the end of each line, what was there before is cleared.
    return "\n".join(f"{row}\x1b[K" for row in rows[:lines])


def _panel(name: str, caption: Caption, width: int, *, bars: bool = True) -> list[str]:
    """Return lines of text about a picture, none of them wider than `width`."""
    value = [] if caption.value is None else [("value", caption.value)]
    facts = [("return", caption.total), ("step", f"{caption.step + 1:,}"), *value]
    if not bars:
        numbers = " · ".join(f"{label} {text}" for label, text in facts)
        return [_cut(line, width) for line in (name, numbers, f"action {caption.action}")]
    lines = [name, "", *(f"{label:<8}{text}" for label, text in facts), "", caption.action, ""]
    for choice, probability, is_taken in caption.choices:
        mark = ">" if is_taken else " "
        bar = "#" * round(_BAR * probability)
        lines += [f"{mark} {choice}", f"  {bar:<{_BAR}} {probability:>4.0%}"]
    return [_cut(line, width) for line in lines]


def _cut(text: str, width: int) -> str:
    """Shorten a text in the middle, and replace what a terminal could take for commands."""
    text = printable(text)
    if len(text) <= width:
        return text
    kept = max(0, width - 1)
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
