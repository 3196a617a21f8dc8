"""Tests of `evaluation.replay.terminal`."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

from evaluation.replay import terminal as module
from evaluation.replay.overlay import Caption
from evaluation.replay.terminal import is_terminal, screen, terminal

CAPTION = Caption(
    step=36,
    total="1,204",
    action="turn left + attack  95%",
    value="-4.89",
    choices=(("nothing", 0.02, False), ("turn left + attack", 0.95, True)),
)
IMAGE = np.full((480, 640, 3), 90, np.uint8)


def lines_of(images, captions, columns, lines):
    """Return the text on the screen, line by line, with a picture's half blocks as `#`."""
    text = screen(images, captions, os.terminal_size((columns, lines)))
    return re.sub(r"\x1b\[[0-9;]*[mK]", "", text).replace("\u2580", "#").split("\n")


@pytest.mark.parametrize("size", [(80, 24), (200, 50), (40, 24), (100, 12), (20, 8), (300, 24)])
@pytest.mark.parametrize("num", [1, 2])
def test_pictures_and_text_fit_into_the_terminal(size, num):
    shown = lines_of([IMAGE] * num, [("zoo/basic", CAPTION)] * num, *size)
    assert len(shown) <= size[1] - 1  # The last line stays empty, so that nothing scrolls.
    assert max(map(len, shown)) <= size[0]
    assert "#" in shown[0]


def test_text_is_written_beside_the_picture_at_80x24():
    shown = lines_of([IMAGE], [("zoo/defend_the_center", CAPTION)], 80, 24)
    text = [line.replace("#", "").strip() for line in shown]
    for words in ("zoo/defend_the_center", "return  1,204", "step    37", "value   -4.89"):
        assert words in text
    assert "turn left + attack  95%" in text
    assert "> turn left + attack" in text
    assert any(
        line.endswith("95%") and line.startswith("###")
        for line in (re.sub("^#{40,}", "", line).strip() for line in shown)
    )
    # The picture uses what the text leaves of the width.
    assert shown[0].count("#") == 80 - 26 - 2


def test_two_episodes_have_their_text_below_them():
    shown = lines_of([IMAGE, IMAGE], [("one", CAPTION), ("the other", CAPTION)], 80, 24)
    names = next(line for line in shown if "the other" in line)
    assert names.startswith("one")
    assert names.index("the other") == 40
    assert shown[0].count("#") == 80


def test_a_picture_without_text_uses_all_lines():
    assert len(lines_of([IMAGE], [], 80, 24)) == 23


def test_names_cannot_control_the_terminal():
    text = screen([IMAGE], [("a\x1b[2Jb\n", CAPTION)], os.terminal_size((80, 24)))
    assert r"a\x1b[2Jb\n" in text
    assert "\x1b[2J" not in text


def test_the_screen_is_cleared_when_its_size_changes(monkeypatch, capsys):
    sizes = iter([(80, 24), (80, 24), (60, 20)])
    monkeypatch.setattr(module.os, "get_terminal_size", lambda: os.terminal_size(next(sizes)))
    with terminal(["x"], text=True) as show:
        written = []
        for _ in range(3):
            assert show([IMAGE], [CAPTION])
            written.append(capsys.readouterr().out)
    assert ["\x1b[2J" in text for text in written] == [True, False, True]
    assert written[0].startswith("\x1b[?25l")  # The cursor is hidden,
    # and shown again, in plain colours, also after half an escape sequence.
    assert capsys.readouterr().out == "\x18\x1b[0m\x1b[?25h\n"


@pytest.mark.parametrize(
    ("isatty", "term", "expected"),
    [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)],
)
def test_a_terminal_is_one_that_can_move_its_cursor(monkeypatch, isatty, term, expected):
    monkeypatch.setattr(module.sys.stdout, "isatty", lambda: isatty, raising=False)
    monkeypatch.setenv("TERM", term)
    assert is_terminal() is expected
