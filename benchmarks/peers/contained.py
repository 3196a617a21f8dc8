"""Run a script so that no processes and no shared memory remain, whatever its libraries do.

Trainers that are killed leave engines, worker processes and shared memory. Each peer's script calls
`contain` first: it runs itself again in a session and a scratch folder of its own, and afterwards
ends all processes that remain in that session. Linux only; uses only the standard library.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PATTERNS = ("ViZDoom*", "torch_*", "sem.mp-*")  # By engines, PyTorch and multiprocessing.
SCRATCH = "PEERS_SCRATCH"


def contain() -> Path:
    """Return the scratch folder, now also the working one; does not return in the outer process.

    The outer process waits for the inner one, cleans up, and exits with its status.
    """
    if SCRATCH in os.environ:
        os.chdir(os.environ[SCRATCH])
        return Path(os.environ[SCRATCH])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    before = shared_objects()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        environment = {**os.environ, SCRATCH: scratch, "TMPDIR": scratch}
        command = [sys.executable, str(Path(sys.argv[0]).resolve()), *sys.argv[1:]]
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            status = process.wait()
        except KeyboardInterrupt:
            status = 130
        finally:
            end_session(process.pid)
            process.wait()
            # Objects of other runs of Doom that started meanwhile are mapped by their processes.
            for path in shared_objects() - before - mapped_objects():
                path.unlink(missing_ok=True)
    sys.exit(status if status >= 0 else 128 - status)


def end_session(session: int) -> None:
    """Kill every process of a session until none is left."""
    while members := session_members(session):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def session_members(session: int) -> list[int]:
    """Return the ids of the living processes of a session."""
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may be anything; after it: state, parent, group, session.
            state, _, _, owner = path.read_text().rpartition(")")[2].split()[:4]
            if int(owner) == session and state not in "ZX":
                members.append(int(path.parent.name))
    return members


def shared_objects() -> set[Path]:
    """Return the shared memory objects of engines and trainers that exist now."""
    return {path for pattern in PATTERNS for path in SHARED_MEMORY.glob(pattern)}


def mapped_objects() -> set[Path]:
    """Return the shared memory objects that a living process has mapped."""
    mapped = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            for line in maps.read_text().splitlines():
                name = line.partition("/")[2]
                if name.startswith("dev/shm/"):
                    mapped.add(Path(f"/{name}"))
    return mapped
