"""Handling SIGINT and SIGTERM, so that nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def until_interrupted() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list; a second one ends the process at once."""
    received: list[int] = []

    def remember(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        print("stopping after this update; press again to stop at once", file=sys.stderr)

    with handling_signals(remember):
        yield received


@contextlib.contextmanager
def handling_signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let a function handle SIGINT and SIGTERM inside a `with` statement."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
