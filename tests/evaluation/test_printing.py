"""Tests of `evaluation.printing`."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from evaluation.printing import PlainConsole, print_line
from processes.streams import printable

HOSTILE = "\x1b]0;title\x07\x1b[2Jerror: all is well\nscore 99\r\x9b31m\u202e\ud800[red]:smile:"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain · text, ü, 中 ±", "plain · text, ü, 中 ±"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("\u202e\ud800\u2028", r"\u202e\ud800\u2028"),
    ],
)
def test_only_visible_characters_are_kept(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_whatever_a_text_contains_is_one_visible_line(text):
    assert printable(text).isprintable()
    assert len(printable(text).splitlines()) <= 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_line_is_printed_whatever_the_stream_can_encode(encoding):
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding, newline="")
    print_line("ü · 中" + HOSTILE, stream)
    lines = buffer.getvalue().decode(encoding).splitlines()
    assert len(lines) == 1
    assert "\x1b" not in lines[0]
    assert lines[0].startswith("ü" if encoding != "ascii" else r"\xfc")


def test_tables_and_lines_of_a_console_show_text_as_it_is():
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, no_color=True, width=200)
    table = Table("column " + HOSTILE, title="title " + HOSTILE, caption="caption " + HOSTILE)
    table.add_row("cell " + HOSTILE)
    console.print(table)
    console.print("line " + HOSTILE, highlight=False)
    with console.status("status [/nope] " + HOSTILE):
        pass
    with console.progress() as show:
        show("progress [/nope] " + HOSTILE)
    text = file.getvalue()
    words = ("column", "title", "caption", "cell", "line", "status [/nope]", "progress [/nope]")
    for word in words:
        assert word + r" \x1b]0;title\x07\x1b[2Jerror" in text
    assert "\x1b]" not in text
    assert "\x07" not in text
    assert text.count("[red]:smile:") >= 6
