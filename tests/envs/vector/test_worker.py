"""Tests of `envs.vector.worker` as a process: its file descriptors, its messages, its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from envs import EnvConfig, make
from envs.vector.memory import create_memory, map_arrays
from envs.vector.messages import (
    ACT,
    CLOSE,
    FAILED,
    FAULT,
    RESET,
    RESTORE,
    STEP,
    Job,
    as_json,
)
from tests.envs import processes

REPLY_WITHIN_S = 30.0


class Worker:
    """The main process's side of one worker, written from the description of the messages."""

    def __init__(self, config, groups):
        example = make(config)
        lanes = sum(map(len, groups))
        memory = create_memory(example, lanes)
        self.arrays = map_arrays(memory, example, lanes)
        example.close()
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(REPLY_WITHIN_S)
        code = "from envs.vector.worker import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno()), str(memory), str(os.getpid())],
            pass_fds=(theirs.fileno(), memory),
            env={**os.environ, "PYTHONPATH": str(processes.ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        os.close(memory)
        job = Job(asdict(config), lanes, groups)
        self.socket.sendall(json.dumps(asdict(job)).encode() + b"\n")

    def ask(self, command, group=0, payload=b""):
        self.socket.sendall(bytes((command, group)) + payload)
        return self.socket.recv(2, socket.MSG_WAITALL)

    def end(self):
        """Return the exit status and what was printed."""
        self.socket.close()
        try:
            _, printed = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, printed


@pytest.fixture
def start():
    started = []

    def start(config, groups=([0],)):
        started.append(Worker(config, [list(group) for group in groups]))
        return started[-1]

    yield start
    for worker in started:
        worker.end()


def test_replies_to_every_command_with_itself_and_steps_only_the_group(start):
    worker = start(EnvConfig(frame_skip=2), groups=([0], [1]))
    for command, group in ((RESET, 1), (RESET, 0), (STEP, 1)):
        assert worker.ask(command, group) == bytes((command, group))
    assert worker.arrays.rewards.tolist() == [0, -2]
    assert worker.ask(ACT, 0) == bytes((ACT, 0))
    assert worker.arrays.rewards.tolist() == [-2, -2]
    worker.arrays.seeds[0] = 5
    assert worker.ask(RESTORE, 0, as_json({0: [1, 1]})) == bytes((RESTORE, 0))
    for command, group in ((STEP, 0), (ACT, 1)):
        assert worker.ask(command, group) == bytes((command, group))


@pytest.mark.parametrize("how", ["told to close", "left alone", "terminated"])
def test_exits_silently_with_its_engines(start, how):
    worker = start(EnvConfig())
    worker.ask(RESET)
    if how == "told to close":
        worker.socket.sendall(bytes((CLOSE, 0)))
    if how == "terminated":
        worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == (0, "")


def test_ignores_interrupts(start):
    worker = start(EnvConfig(env="tests.envs.toy:Shifted-v0"))
    worker.ask(RESET)
    worker.process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    assert worker.ask(STEP) == bytes((STEP, 0))


def test_reports_faults_and_continues(start):
    worker = start(EnvConfig(env="tests.envs.toy:Raising-v0"))
    assert worker.ask(RESET) == bytes((RESET, 0))
    assert [worker.ask(STEP) for _ in range(2)] == [bytes((STEP, 0))] * 2
    letter, length = worker.ask(STEP)
    text = worker.socket.recv(length, socket.MSG_WAITALL).decode()
    assert letter == FAULT
    assert text.startswith("ZeroDivisionError: the toy broke (toy.py:")
    assert worker.socket.recv(2, socket.MSG_WAITALL) == bytes((STEP, 0))
    assert (worker.arrays.rewards[0], worker.arrays.truncated[0]) == (0, True)
    assert worker.ask(STEP) == bytes((STEP, 0))
    assert worker.end() == (0, "")


def test_reports_that_it_cannot_continue_and_exits(start):
    worker = start(EnvConfig(env="tests.envs.toy:Stillborn-v0"))
    worker.socket.sendall(bytes((RESET, 0)))
    with worker.socket.makefile("rb") as report:
        text = report.read()
    reason = b"RuntimeError: it was never alive (toy.py:"
    assert text.count(reason) == 3
    *_, last = text.split(bytes((FAILED, 0)))
    assert int.from_bytes(last[:8], "big") == len(last[8:])
    assert json.loads(last[8:])["reason"].startswith(
        "an episode could not be started: " + reason.decode()
    )
    assert worker.end() == (0, "")


def test_says_nothing_if_nobody_reads_its_report(start):
    worker = start(EnvConfig(env="tests.envs.toy:Stillborn-v0"))
    worker.process.send_signal(signal.SIGSTOP)
    worker.socket.sendall(bytes((RESET, 0)))
    worker.socket.close()
    worker.process.send_signal(signal.SIGCONT)
    assert worker.end() == (0, "")
