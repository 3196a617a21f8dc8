"""Locks between processes, in a file; a lock is released when the process that holds it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class Locks:
    """Any number of locks, each on one byte of a file.

    These are POSIX record locks: the kernel releases them when the process ends, for whatever
    reason. They exclude other processes, but not threads of this process. Nothing else in this
    process may open the file, because closing it would release all locks.

    Args:
        path: the file; it stays empty.
    """

    def __init__(self, path: Path) -> None:
        # Not through a link, which could lead to a file that another program locks.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)

    def acquire(self, number: int, *, wait: bool = True, shared: bool = False) -> bool:
        """Acquire a lock, or change one that is held from exclusive to shared or back.

        Args:
            number: number of the lock.
            wait: whether to wait until other processes have released it.
            shared: acquire it together with other processes that share it.

        Returns:
            Whether it was acquired; always true with `wait`.
        """
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.lockf(self._file, how if wait else how | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # Which one depends on the system.
            return False
        return True

    def release(self, number: int) -> None:
        """Release a lock."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    @contextlib.contextmanager
    def held(self, number: int) -> Iterator[None]:
        """Acquire a lock, waiting for it, and release it at the end of the context."""
        self.acquire(number)
        try:
            yield
        finally:
            self.release(number)

    def close(self) -> None:
        """Release all locks."""
        self._file.close()
