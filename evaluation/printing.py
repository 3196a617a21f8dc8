"""Printing: text from files, paths and environments is printed so that a terminal only shows it.

Such text may contain escape sequences, which move the cursor or change the title of a window, and
line feeds, which forge lines. Nothing else in the packages prints.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from rich.console import Console
from rich.status import Status
from rich.text import Text

from processes.streams import printable


def print_line(text: str = "", file: TextIO | None = None) -> None:
    """Print a line, whatever its text contains and whatever characters the stream can encode.

    Args:
        text: the line.
        file: the stream; default: the standard output.
    """
    file = file or sys.stdout
    encoding = getattr(file, "encoding", None) or "utf-8"
    encoded = printable(text).encode(encoding, "backslashreplace")
    print(encoded.decode(encoding), file=file, flush=True)  # the only place


class PlainConsole(Console):
    """A console that prints strings as they are: without markup, emoji or escape sequences."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as a text, also one that is the title or a cell of a table."""
        return super().render_str(printable(text), **options)

    def status(self, status: Any, **options: Any) -> Status:
        """Show a line while something is done."""
        shown = Text(printable(status)) if isinstance(status, str) else status
        return super().status(shown, **options)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable[[str], None]]:
        """Show the line that the yielded function was given last, while something is done."""
        with self.status("") as status:
            yield lambda line: status.update(Text(printable(line)))
