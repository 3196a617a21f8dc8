"""Finds engines and workers that tests started, and the files and memory they leave behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROC, SHARED_MEMORY = Path("/proc"), Path("/dev/shm")
# All descendants of this process inherit this variable, even after their parents died.
MARKER = "DOOMGRAD_TESTS"
_CONFIG = re.compile(r"-config (\S+)")
_INSTANCE = re.compile(r"viz_instance_id (\w+)")


def record_engines(folder: Path) -> None:
    """Record the command line of every engine that this process or its children start.

    Engines are started through `setpriv`; a script of that name, earlier on the path, records the
    arguments and calls the real one.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is not None:
        script = folder / "setpriv"
        script.write_text(f'#!/bin/sh\necho "$*" >> "{folder}/engines"\nexec {setpriv} "$@"\n')
        script.chmod(0o700)
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def command_lines(mark: str) -> dict[int, str]:
    """Return the command line of each running process with a mark, by id, except this process."""
    found, wanted = {}, f"{MARKER}={mark}".encode()
    for pid in filter(str.isdigit, os.listdir(PROC)):
        # A process may have ended in the meantime, or belong to another user.
        with contextlib.suppress(OSError):
            # Strings instead of paths: this runs before and after each of thousands of tests.
            with open(f"{PROC}/{pid}/environ", "rb") as file:
                marked = wanted in file.read().split(b"\0")
            if marked:
                words = (PROC / pid / "cmdline").read_bytes().split(b"\0")
                found[int(pid)] = b" ".join(words).decode(errors="replace")
    found.pop(os.getpid(), None)
    return found


def is_engine(command_line: str) -> bool:
    return "+viz_instance_id" in command_line


def is_worker(command_line: str) -> bool:
    return "envs.vector.worker" in command_line


def leftovers(record: Path) -> set[str]:
    """Return descriptions of the engines, workers, scratch folders and shared memory that exist."""
    running = command_lines(os.environ[MARKER])
    ours = {p: c for p, c in running.items() if is_engine(c) or is_worker(c)}
    found = {f"process {pid}: {command}" for pid, command in ours.items()}
    found |= {str(folder) for folder in Path(tempfile.gettempdir()).glob("doomgrad-engine-*")}
    if (record / "engines").exists():
        started = set(_INSTANCE.findall((record / "engines").read_text()))
        objects = [*SHARED_MEMORY.glob("ViZDoom*")]
        found |= {str(o) for o in objects if any(o.name.endswith(i) for i in started)}
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds, and return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        state = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def start_script(script: str, mark: str, cwd: Path) -> subprocess.Popen[str]:
    """Start a Python script in a new process with its own scratch folder."""
    environment = {**os.environ, MARKER: mark, "PYTHONPATH": str(ROOT), "TMPDIR": str(cwd)}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run_script(script: str, cwd: Path) -> str:
    """Run a Python script and return its output."""
    return _run("-c", script, cwd=cwd)


def run_file(path: Path, cwd: Path) -> str:
    """Run a Python file and return its output."""
    return _run(str(path), cwd=cwd)


def _run(*arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shared_memory(engine_command_lines: Iterable[str]) -> list[Path]:
    """Return the named shared memory of engines."""
    instances = [i for line in engine_command_lines for i in _INSTANCE.findall(line)]
    return [path for i in instances for path in SHARED_MEMORY.glob(f"ViZDoom*{i}")]


def remove_traces(engine_command_lines: Collection[str]) -> None:
    """Remove what engines left behind whose owner was killed and could not do it."""
    for path in shared_memory(engine_command_lines):
        path.unlink()
    for line in engine_command_lines:
        shutil.rmtree(Path(_CONFIG.findall(line)[0]).parent)
