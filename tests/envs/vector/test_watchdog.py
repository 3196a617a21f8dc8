"""Tests of `envs.vector.watchdog`: nothing outlives the main process."""

import os
import signal

import pytest

from tests.envs import processes
from tests.envs.vector.test_vector import WAITING


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_and_engines_die_with_the_main_process(tmp_path, how):
    mark = f"{tmp_path}"
    owner = processes.start_script(WAITING, mark, tmp_path)
    try:
        assert owner.stdout.readline() == "[-4.0, -4.0]\n"
        running = processes.command_lines(mark)
        running.pop(owner.pid)
        kinds = [(processes.is_engine(c), processes.is_worker(c)) for c in running.values()]
        assert sorted(kinds) == [(False, True)] * 2 + [(True, False)] * 2
    finally:
        owner.send_signal(how)
        owner.communicate()
    gone = processes.wait_until(lambda: not any(map(processes.is_running, running)), 30.0)
    left = processes.shared_memory(running.values())
    assert gone
    # Workers are not killed: they notice that the main process is gone, and remove everything.
    assert left == []
    assert list(tmp_path.iterdir()) == []


def test_workers_remove_everything_even_if_an_engine_hangs_when_the_main_process_dies(tmp_path):
    mark = f"{tmp_path}"
    owner = processes.start_script(WAITING, mark, tmp_path)
    try:
        assert owner.stdout.readline() == "[-4.0, -4.0]\n"
        running = processes.command_lines(mark)
        running.pop(owner.pid)
        for pid, line in running.items():
            if processes.is_engine(line):
                os.kill(pid, signal.SIGSTOP)
    finally:
        owner.kill()
        owner.communicate()
    assert processes.wait_until(lambda: not any(map(processes.is_running, running)), 10.0)
    assert processes.shared_memory(running.values()) == []
    assert list(tmp_path.iterdir()) == []
