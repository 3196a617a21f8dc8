"""Tests of `processes.streams`: output that cannot be written, or that nobody reads."""

import contextlib
import errno
import io
import os
import subprocess
import sys
import time

import pytest

from processes import streams
from processes.streams import LossyStream, lost_output, protect_streams, say_once, write_at_once
from tests.envs import processes


@pytest.fixture
def pipe():
    """The two ends of a pipe as (reading, writing)."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        os.close(end)


def fill(writing):
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)


def test_what_is_read_arrives(pipe):
    reading, writing = pipe
    stream = io.TextIOWrapper(io.BufferedWriter(LossyStream(writing, 1.0)), write_through=True)
    text = "a line\n" * 2000
    stream.write(text)
    stream.flush()
    assert os.read(reading, 10**6).decode() == text
    assert stream.buffer.raw.lost is None
    assert not stream.isatty()
    assert stream.fileno() == writing


def test_a_reader_that_has_gone_is_no_error(pipe):
    reading, writing = pipe
    os.close(reading)
    pipe[0] = os.dup(writing)
    stream = LossyStream(writing, 1.0)
    assert stream.write(b"nothing") == 7
    assert stream.lost.errno == errno.EPIPE


def test_a_reader_that_does_not_read_is_waited_for_once(pipe):
    reading, writing = pipe
    fill(writing)
    stream = LossyStream(writing, 0.2)
    started = time.monotonic()
    assert [stream.write(b"nothing") for _ in range(50)] == [7] * 50
    assert 0.2 <= time.monotonic() - started < 5.0  # Each time would take 10.
    assert stream.lost.errno == errno.ETIMEDOUT
    os.read(reading, 10**6)
    assert stream.write(b"again") == 5
    assert os.read(reading, 100) == b"again"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has none")
def test_a_full_disk_is_no_error():
    with open("/dev/full", "wb", buffering=0) as full:
        stream = LossyStream(full.fileno(), None)
        assert stream.write(b"nothing") == 7
        assert stream.lost.errno == errno.ENOSPC


CLOSED = """
import os, sys
from processes.streams import protect_streams, lost_output
protect_streams()
print("nobody reads this \\u00fc")
print("nor this", file=sys.stderr)
descriptor = os.open(os.devnull, os.O_RDONLY)
sys.exit(descriptor + (10 if lost_output() else 0))
"""


def test_streams_that_are_closed_are_opened():
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, CLOSED]
    environment = {**os.environ, "PYTHONPATH": str(processes.ROOT)}
    assert subprocess.run(command, env=environment, check=False).returncode == 3


def test_streams_of_tests_and_notebooks_are_kept(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", output)
    protect_streams()
    assert sys.stdout is sys.stderr is output
    assert lost_output() is None


def test_a_line_is_said_once(capsys, monkeypatch):
    say_once("it was not closed")
    say_once("it was not closed")
    assert capsys.readouterr().err == "it was not closed\n"
    monkeypatch.setattr(streams, "_is_silent", True)
    say_once("it was not opened")
    assert capsys.readouterr().err == ""


def test_a_handler_of_signals_writes_only_what_needs_no_waiting(capfd, pipe):
    write_at_once("stopping\n")
    assert capfd.readouterr().err == "stopping\n"
    fill(pipe[1])
    before = os.dup(2)
    os.dup2(pipe[1], 2)
    try:
        write_at_once("stopping\n")
    finally:
        os.dup2(before, 2)
        os.close(before)
