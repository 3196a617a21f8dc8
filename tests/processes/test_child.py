"""Tests of `processes.child`: what another Python process imports, and when it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from processes import child
from processes.child import above_standard_streams, search_path, start_python
from tests.envs import processes
from tests.envs.vector.opened import TOY, opened

open_envs = pytest.fixture(opened)
# Of the standard library, of others, and of the project.
STRANGE = ("json", "struct", "select", "ctypes", "cv2", "numpy", "vizdoom", "envs", "sitecustomize")


@pytest.fixture
def strange_folder(tmp_path, monkeypatch):
    """The current folder, whose modules tell that they were imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in STRANGE:
        code = f"open({str(tmp_path / 'canary')!r}, 'a').write({name!r})\nraise ImportError\n"
        (tmp_path / f"{name}.py").write_text(code)
    return tmp_path


def test_the_current_folder_is_not_searched_first(strange_folder):
    process = start_python(
        "import json, struct, select; print(sys.argv[1])", ["hello"], stdout=subprocess.PIPE
    )
    assert process.communicate() == (b"hello\n", None)
    assert not (strange_folder / "canary").exists()


def test_a_worker_runs_nothing_that_lies_in_the_current_folder(strange_folder, open_envs):
    envs = open_envs(f"{TOY}:Shifted-v0", 1, num_workers=1)
    envs.reset(seed=0)
    assert envs.num_restarts == 0
    assert not (strange_folder / "canary").exists()


def test_the_current_folder_is_searched_last_and_the_projects_own_keeps_its_place(
    tmp_path, monkeypatch
):
    project = str(processes.ROOT)
    for folder, here in ((tmp_path, ""), (tmp_path, str(tmp_path))):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [here, project, "/elsewhere"])
        assert search_path() == [project, "/elsewhere", str(tmp_path)]
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", ["", "/elsewhere"])
    assert search_path() == [project, "/elsewhere"]


def test_descriptors_are_passed_by_other_numbers_than_those_of_standard_streams():
    copy = above_standard_streams(0)
    os.close(copy)
    assert copy >= 3
    reading, writing = os.pipe()
    code = "os.write(int(sys.argv[1]), sys.argv[2].encode())"
    process = start_python(code, ["hello"], descriptors=[writing])
    os.close(writing)
    with open(reading) as pipe:
        assert pipe.read() == "hello"
    assert process.wait() == 0


def test_standard_streams_that_are_closed_are_opened():
    code = "from processes.child import start_python; print(start_python('os.fstat(0)').wait())"
    command = ["sh", "-c", 'exec "$0" -c "$1" <&-', sys.executable, code]
    environment = {**os.environ, "PYTHONPATH": str(processes.ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout == b"0\n"


ORPHAN = """
import os, signal, sys
from processes.child import start_python
code = "print(os.getpid(), flush=True); import time; time.sleep(100)"
start_python(code, when_orphaned=signal.{signal})
time = __import__("time")
time.sleep(100)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_process_ends_with_the_one_that_started_it(tmp_path, name):
    owner = processes.start_script(ORPHAN.format(signal=name), str(tmp_path), tmp_path)
    pid = int(owner.stdout.readline())
    if name == "SIGKILL":
        os.kill(pid, signal.SIGSTOP)
    owner.kill()
    owner.communicate()
    assert processes.wait_until(lambda: not processes.is_running(pid), 30.0)


def test_a_process_whose_parent_died_at_once_ends(monkeypatch):
    first = child._FIRST
    monkeypatch.setattr(child, "_FIRST", first.replace("{parent}", "1"))
    assert start_python("").wait() == 1


def test_no_program_is_started_in_another_way():
    """Benchmarks, which start programs as users do, are none."""
    folders = ("agents", "commands", "deploy", "envs", "evaluation", "perception", "processes")
    folders += ("storage", "training")
    files = [file for folder in folders for file in (processes.ROOT / folder).rglob("*.py")]
    starting = [f for f in files if "sys.executable" in Path(f).read_text()]
    assert starting == [Path(child.__file__)]
