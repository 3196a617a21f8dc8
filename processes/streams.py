"""Standard output and standard error that nobody may be reading.

A terminal is closed, `head` has seen enough, a disk is full, a program does not read the pipe to
which another one writes: what is printed is then lost, but what prints it continues.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import select
import sys
from typing import TextIO

_is_silent = False
_PATIENCE_S = 1.0  # for which a reader that is slow is waited for


class LossyStream(io.RawIOBase):
    """Writes to a file descriptor what can be written, and drops the rest.

    Args:
        descriptor: the file descriptor.
        patience_s: seconds after which text is dropped that nobody reads; None: never.

    Attributes:
        lost: why something was dropped last; None: nothing was.
    """

    def __init__(self, descriptor: int, patience_s: float | None) -> None:
        super().__init__()
        self._descriptor, self._patience_s = descriptor, patience_s
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._is_read = True
        self.lost: OSError | None = None

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def write(self, data: io.ReadableBuffer) -> int:  # type: ignore[name-defined] # of typeshed
        """Write data, and return how much was written or dropped."""
        view = memoryview(data).cast("B")
        try:
            if self._patience_s is not None:
                # Whoever did not read is not waited for again.
                patience_s = self._patience_s if self._is_read else 0.0
                self._is_read = bool(self._poll.poll(1000 * patience_s))
                if not self._is_read:
                    raise TimeoutError(errno.ETIMEDOUT, "nobody reads it")
            # This much can be written without waiting.
            return os.write(self._descriptor, view[: select.PIPE_BUF])
        except OSError as error:
            self.lost = error
            return len(view)


def protect_streams(*, drops_output: bool = False) -> None:
    """Make standard output and error streams to which writing never fails.

    Those that are closed are opened first, so that no other file gets their numbers.

    Args:
        drops_output: whether standard output drops text too that nobody reads, instead of waiting.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    sys.stdout = _protected(sys.stdout, 1, _PATIENCE_S if drops_output else None)
    sys.stderr = _protected(sys.stderr, 2, _PATIENCE_S)


def _protected(stream: TextIO | None, descriptor: int, patience_s: float | None) -> TextIO:
    """Return a stream in place of a given one; streams of tests and notebooks are kept."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
        try:
            if stream.fileno() != descriptor:
                return stream
        except (OSError, ValueError):
            return stream
    return io.TextIOWrapper(
        io.BufferedWriter(LossyStream(descriptor, patience_s)),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=getattr(stream, "line_buffering", False) or descriptor == 2,
    )


def lost_output() -> OSError | None:
    """Return why text to standard output was lost; None if none was."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, LossyStream) else None


def printable(text: str) -> str:
    """Return a text as one line, with escapes for what a terminal would not show as it is.

    Names and files of strangers may contain line feeds and the escape sequences of terminals.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@functools.cache
def say_once(line: str) -> None:
    """Print a line to standard error, unless this process has printed it before."""
    if not _is_silent and sys.stderr is not None:
        sys.stderr.write(printable(line) + "\n")


def be_silent() -> None:
    """Let `say_once` print nothing in this process."""
    global _is_silent
    _is_silent = True


def write_at_once(text: str) -> None:
    """Write to standard error from the handler of a signal, if that needs no waiting.

    A stream of Python cannot be used there: the signal may have arrived while it was written to.
    """
    with contextlib.suppress(OSError):
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if poll.poll(0):
            os.write(2, text.encode())
