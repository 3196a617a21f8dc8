"""Starts Python in another process, which cannot outlive this one.

Every Python process of the project is started here: workers, the trainings of a suite, and the one
that tries to open a window. It imports what this process can import, but never searches the current
folder before anything else: a file there, such as a `json.py`, may be a stranger's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PROJECT = str(Path(__file__).resolve().parents[1])
# Before anything is imported, because Python itself puts the current folder first on the path of
# `-c`. Linux can send a signal when the parent dies; it may have died before this was asked for.
# Standard streams that are closed are opened: other files must not get their numbers.
_FIRST = """\
import sys
sys.path[:] = {path}
import os
while (stream := os.open(os.devnull, os.O_RDWR)) < 3:
    pass
os.close(stream)
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, {number})
except (ImportError, OSError, AttributeError):
    pass
if os.getppid() != {parent}:
    os._exit(1)
"""


def start_python(
    code: str,
    arguments: Sequence[str] = (),
    *,
    when_orphaned: signal.Signals = signal.SIGKILL,
    descriptors: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start Python code in another process.

    Args:
        code: the code.
        arguments: its `sys.argv[1:]`, after the descriptors.
        when_orphaned: the signal that Linux sends it as soon as the thread that started it ends,
            however that happens.
        descriptors: file descriptors to pass; the numbers that they have in the other process,
            which are never those of standard streams, are its first arguments.
        environment: environment variables to add.
        **options: of `subprocess.Popen`.
    """
    number = int(when_orphaned)
    first = _FIRST.format(path=ascii(search_path()), number=number, parent=os.getpid())
    with contextlib.ExitStack() as stack:
        passed = []
        for descriptor in descriptors:
            passed.append(above_standard_streams(descriptor))
            stack.callback(os.close, passed[-1])
        return subprocess.Popen(
            [sys.executable, "-c", first + code, *map(str, passed), *arguments],
            pass_fds=passed,
            env={**os.environ, **(environment or {})},
            **options,
        )


def above_standard_streams(descriptor: int) -> int:
    """Return a copy of a file descriptor that is none of the numbers of standard streams.

    New files get these numbers where a program was started without standard streams.
    """
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def search_path() -> list[str]:
    """Return the folders in which this process finds modules, with the current folder last.

    The project's own folder keeps its place, also where it is the current one.
    """
    folders = [os.path.abspath(folder) for folder in sys.path]
    here = os.path.realpath(os.curdir)
    strange = [f for f in folders if os.path.realpath(f) == here != _PROJECT]
    return [folder for folder in folders if folder not in strange] + strange[:1]
