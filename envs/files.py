"""Reads files that may come from strangers: only regular ones, and of a bounded size."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from envs.errors import EnvError


def open_regular(path: Path, largest: int) -> BinaryIO:
    """Open a file for reading.

    Devices have no end, and pipes wait for a writer: neither is opened.

    Args:
        path: the file.
        largest: size in bytes above which it is refused.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be opened.
        EnvError: If it is not a regular file, or is larger.
    """
    if stat.S_ISDIR(path.stat().st_mode):
        raise EnvError(f"{path} is a folder; name a file")
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= largest:
        return file
    file.close()
    if not stat.S_ISREG(status.st_mode):
        raise EnvError(f"{path} is not a regular file")
    raise EnvError(f"{path} is too large: {status.st_size:,} bytes; at most {largest:,} are read")
