"""Handling SIGINT, SIGTERM and SIGHUP, so that nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from processes.streams import write_at_once

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What Ctrl-C sends, what schedulers send, and what a terminal sends that is closed."""
_AGAIN_AFTER_S = 2.0  # Schedulers and shells may send the same signal twice at once.


@contextlib.contextmanager
def until_interrupted() -> Iterator[list[int]]:
    """Collect the signals that stop a training in a list.

    A second Ctrl-C ends the process at once, and so does a second SIGTERM that is sent later.
    """
    received: list[int] = []
    since = 0.0

    def remember(number: int, frame: Any) -> None:
        nonlocal since
        if number in received and (number == signal.SIGINT or _is_again(number, since)):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if not received:
            since = time.monotonic()
            write_at_once("\nstopping after this update; press again to stop at once\n")
        received.append(number)

    with handling_signals(remember):
        yield received


def _is_again(number: int, since: float) -> bool:
    """Return whether a signal that was received before is sent by somebody who has waited."""
    return number == signal.SIGTERM and time.monotonic() - since > _AGAIN_AFTER_S


def stops_after(signals: Sequence[int], seconds: float = 0.0) -> Callable[[], bool]:
    """Return a function that returns whether signals were received some seconds ago.

    Args:
        signals: the signals so far; more may be appended.
        seconds: the time since the function noticed the first one.
    """
    noticed: float | None = None

    def stops() -> bool:
        nonlocal noticed
        if not signals:
            return False
        if noticed is None:
            noticed = time.monotonic()
        return time.monotonic() - noticed >= seconds

    return stops


@contextlib.contextmanager
def handling_signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let a function handle `STOPPING` inside a `with` statement.

    SIGHUP is still ignored if it was, which is what `nohup` is for.
    """
    numbers = [n for n in STOPPING if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
