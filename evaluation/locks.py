"""Locks that processes share through a file, and that end with the process that holds them."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


class Locks:
    """Any number of locks, each a byte of one file that nobody else in this process may open.

    They exclude other processes, not threads of this one: POSIX record locks, which the kernel
    takes back when a process ends, however it does.

    Args:
        path: the file; it stays empty.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")

    def take(self, number: int, *, wait: bool = True, shared: bool = False) -> bool:
        """Take a lock, or change between having it alone and sharing it.

        Args:
            number: which one.
            wait: until others let go of it.
            shared: with others who share it.

        Returns:
            Whether it was taken; always, if waited for.
        """
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.lockf(self._file, how if wait else how | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # Which one depends on the system.
            return False
        return True

    def give(self, number: int) -> None:
        """Give a lock back."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    @contextlib.contextmanager
    def held(self, number: int) -> Iterator[None]:
        """Wait for a lock, and hold it for a while."""
        self.take(number)
        try:
            yield
        finally:
            self.give(number)

    def close(self) -> None:
        """Give all back."""
        self._file.close()
