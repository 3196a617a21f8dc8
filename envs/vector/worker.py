"""A worker process: it holds some environments and steps them on command.

Its arguments are two inherited file descriptors, of a socket and of the shared memory, and the
process id of the main process; see `envs.vector.messages`. When the socket closes, because the main
process closed it or died, the worker closes its environments and exits.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable

import cv2

from envs.doom.engine import abandon_engines
from envs.errors import describe_error
from envs.vector.lanes import Lanes
from envs.vector.messages import (
    ACT,
    ASK,
    CLOSE,
    FAILED,
    FAULT,
    RESET,
    RESTORE,
    RESULT,
    STEP,
    Job,
    as_json,
    receive_json,
)
from envs.vector.watchdog import ParentWatch, Watchdog
from processes.streams import be_silent, protect_streams


def serve(connection: socket.socket, memory: int) -> None:
    """Carry out commands until CLOSE, or until the other end of the socket is closed."""

    def report_fault(reason: str) -> None:
        text = reason.encode()[:255]
        connection.sendall(bytes((FAULT, len(text))) + text)

    with connection.makefile("rb", buffering=0) as lines:
        job = Job(**json.loads(lines.readline()))
    lanes = Lanes(job, memory, report_fault)
    Watchdog(lanes, job.hang_after_s).start()
    methods: dict[int, Callable[[list[int]], None]]
    methods = {RESET: lanes.reset, STEP: lanes.step, ACT: lanes.act}
    gc.freeze()  # All objects so far are permanent; the collector need not traverse them.
    try:
        while len(message := connection.recv(2, socket.MSG_WAITALL)) == 2:
            command, group = message
            if command == CLOSE:
                lanes.close()
                break
            lanes.busy = True
            if command == RESTORE:
                lanes.restore(job.groups[group], receive_json(connection))
            elif command == ASK:
                answers = lanes.ask(job.groups[group], receive_json(connection))
                message = bytes((RESULT, group)) + answers + message
            else:
                methods[command](job.groups[group])
            lanes.busy = False
            connection.sendall(message)
    finally:
        abandon_engines()


def main() -> None:
    """Run a worker; errors are reported to the main process, not printed."""
    # The main process handles Ctrl-C and the closing of the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    protect_streams(drops_output=True)  # What an environment prints stops nothing.
    be_silent()  # The main process says the same.
    ParentWatch(int(sys.argv[3])).start()
    cv2.setNumThreads(1)
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        serve(connection, int(sys.argv[2]))
    except Exception as error:
        with contextlib.suppress(ConnectionError):  # The main process is gone: nobody reads it.
            report = as_json({"reason": describe_error(error)})
            connection.sendall(bytes((FAILED, 0)) + report)
    # The interpreter's own clean-up is skipped: nothing is left to clean up, and it takes time.
    connection.close()
    os._exit(0)
