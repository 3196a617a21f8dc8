"""The main process's side of the workers: handles, teams, and which worker gets which environment.

An environment's index among all N is its *lane*. Lanes are split into *groups*, which are sent
actions and received one at a time. Workers that hold lanes of the same groups form a *team*: groups
of different teams never wait for each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.config import EnvConfig
from envs.doom.engine import remove_leftovers
from envs.errors import EnvError
from envs.vector.messages import (
    ACT,
    CLOSE,
    FAILED,
    FAULT,
    HUNG,
    RESULT,
    STEP,
    Job,
    receive_json,
    to_builtin,
)
from processes.child import start_python

# Seconds after which a worker that was told to close is killed; also if it is in a step then.
CLOSE_WITHIN_S, HURRY_S = 5.0, 1.0
_CHECK_EVERY_S = 0.25  # how often whoever waits looks whether to stop
_MAX_DEATHS = 3  # of a worker in a row, without a reply in between
_START_WORKER = "from envs.vector.worker import main; main()"


class StoppedError(Exception):
    """Environments are no longer waited for, because whoever waits has been told to stop."""


class WorkerDiedError(Exception):
    """A worker process has ended; the message says how."""


class WorkerHandle:
    """A worker process and the socket to it; a process that dies is replaced by a new one.

    A worker and its engines are bound to one core. Worker and engine take turns several times per
    env step, and on the same core they switch at once, with their shared data in its cache. This
    nearly doubles the speed of many environments on few cores.

    Args:
        job: what the worker is to do.
        memory: file descriptor of the shared memory.
        core: the CPU core to which it is bound.
        restore_seeds: is called with lanes before they are sent their actions again; it sets their
            seeds in shared memory to what they were when the actions were sent.

    Attributes:
        job: what the worker is to do.
        process: the current process.
        connection: the socket to it.
        unanswered: messages to which it has not replied yet, oldest first.
        fault: the last fault that it reported.
        answers: what environments answered to the last question.
    """

    def __init__(
        self, job: Job, memory: int, core: int, restore_seeds: Callable[[list[int]], None]
    ) -> None:
        self.job = job
        self._memory, self._core, self._restore_seeds = memory, core, restore_seeds
        self.unanswered: deque[bytes] = deque()
        self.fault = ""
        self.answers: dict[str, Any] = {}
        self._deaths = 0  # since the last reply
        self._start(job)

    def _start(self, job: Job) -> None:
        self.connection, theirs = socket.socketpair()
        with theirs:
            self.process = start_python(
                _START_WORKER,
                [str(os.getpid())],
                descriptors=(theirs.fileno(), self._memory),
                # One that is stopped continues, and then notices that it is to end.
                when_orphaned=signal.SIGCONT,
                environment={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the main process only.
            )
        # Before its engines start, which inherit the core.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, {self._core})
        self._transmit(json.dumps(asdict(job), default=to_builtin).encode() + b"\n")

    def restart(self) -> None:
        """Replace a process that died or hangs, and send the new one what is unanswered."""
        self.kill()
        self.connection.close()
        self._start(replace(self.job, is_successor=True))
        for message in self.unanswered:
            if message[0] in (STEP, ACT):
                self._restore_seeds(self.job.groups[message[1]])
            self._transmit(message)

    def send(self, message: bytes) -> None:
        """Send a command, without waiting for the reply."""
        self.unanswered.append(message)
        self._transmit(message)

    def receive(self) -> int | None:
        """Receive the reply to the oldest command without one, or the report of a fault.

        Returns:
            The group of the command; None for a fault, whose reason is then in `fault`.

        Raises:
            WorkerDiedError: If the process has ended.
            EnvError: If the worker cannot continue, or died several times in a row.
        """
        try:
            reply = self.connection.recv(2, socket.MSG_WAITALL)
        except ConnectionError:  # It died before it read what it was sent.
            reply = b""
        if len(reply) < 2:
            how = self._wait_for_end()
            self._deaths += 1
            if self._deaths == _MAX_DEATHS:
                raise EnvError(f"a worker process died {_MAX_DEATHS} times in a row: {how}")
            raise WorkerDiedError(f"a worker process died: {how}")
        command, group = reply
        if command == FAILED:
            raise EnvError(receive_json(self.connection)["reason"])
        if command == FAULT:
            text = self.connection.recv(group, socket.MSG_WAITALL)
            self.fault = text.decode(errors="replace")
            return None
        if command == RESULT:
            self.answers |= receive_json(self.connection)
            return self.receive()
        self._deaths = 0
        self.unanswered.popleft()
        return int(group)

    def close(self) -> None:
        """Tell the process to close its environments and exit, without waiting for it."""
        self._transmit(bytes((CLOSE, 0)))
        self.connection.close()

    def end(self, deadline: float) -> None:
        """Wait until the process has ended, and kill it at a deadline of `time.monotonic`."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the process, and remove the leftovers of its engines."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        remove_leftovers()

    def _transmit(self, message: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # receive() reports why.
            self.connection.sendall(message)

    def _wait_for_end(self) -> str:
        """Wait for a process that closed its socket, and return how it ended."""
        try:
            status = self.process.wait(CLOSE_WITHIN_S)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        if status == HUNG:
            return f"an environment did not respond for {self.job.hang_after_s:g} s"
        return f"signal {-status}" if status < 0 else f"exit status {status}"


class Team:
    """Workers that hold lanes of the same groups, and the replies that they still owe.

    Teams share nothing: each may be served by its own thread.

    Args:
        holders: for each of the team's groups, the workers that hold lanes of it.
        patience_s: seconds after which a worker that does not reply is replaced.
        count_restart: is called with the reason whenever an environment or a worker was replaced.
        stops: returns whether environments are no longer to be waited for.
    """

    def __init__(
        self,
        holders: dict[int, list[WorkerHandle]],
        patience_s: float,
        count_restart: Callable[[str], None],
        stops: Callable[[], bool],
    ) -> None:
        self.groups = list(holders)
        self._holders = holders
        self._patience_s, self._more_patience_s = patience_s, 0.0
        self._count_restart, self._stops = count_restart, stops
        self._workers: dict[int, WorkerHandle] = {}  # by file descriptor
        self._poll = select.poll()
        for worker in {id(w): w for group in holders.values() for w in group}.values():
            self._listen(worker)
        # For each group in flight, how many of its workers have not replied, in order of sending.
        self._unanswered: dict[int, int] = {}

    def expect_idle(self, group: int) -> None:
        """Check that a group is not in flight.

        Raises:
            EnvError: If it was sent a command and not received since.
        """
        if group in self._unanswered:
            raise EnvError(
                f"group {group} has not been received since it was last sent actions; call "
                "receive() first"
            )

    def command(
        self, command: int, group: int, payload: bytes = b"", more_patience_s: float = 0.0
    ) -> None:
        """Send a command to all workers of a group, without waiting for them.

        Args:
            command: one of `messages`.
            group: the group.
            payload: what follows the command.
            more_patience_s: seconds that a reply to this command, or to one in flight, may take
                beyond the usual ones.

        Raises:
            EnvError: If the group is in flight.
        """
        self.expect_idle(group)
        message = bytes((command, group)) + payload
        for worker in self._holders[group]:
            worker.send(message)
        self._unanswered[group] = len(self._holders[group])
        self._more_patience_s = more_patience_s

    def take_answers(self) -> dict[str, Any]:
        """Return what environments answered to a question, by lane, and forget it."""
        answers: dict[str, Any] = {}
        for worker in self._workers.values():
            answers |= worker.answers
            worker.answers = {}
        return answers

    def wait(self) -> int:
        """Wait until some group in flight is ready, and return it; of several, the first sent.

        Raises:
            EnvError: If no group is in flight.
        """
        if not self._unanswered:
            raise EnvError("no group was sent actions; call send() first")
        while True:
            for group, missing in self._unanswered.items():
                if not missing:
                    return group
            self._receive_replies()

    def finish(self, group: int) -> None:
        """Wait until a group is ready; it is then no longer in flight.

        Raises:
            EnvError: If the group is not in flight.
        """
        if group not in self._unanswered:
            raise EnvError(f"group {group} was not sent actions; call send() first")
        while self._unanswered[group]:
            self._receive_replies()
        del self._unanswered[group]

    def finish_all(self) -> None:
        """Wait until no group is in flight."""
        for group in list(self._unanswered):
            self.finish(group)

    def _receive_replies(self) -> None:
        """Wait until some workers reply; replace those that are dead or do not reply in time.

        Raises:
            StoppedError: If they are no longer to be waited for.
        """
        since, patience_s = time.monotonic(), self._patience_s + self._more_patience_s
        ready: list[tuple[int, int]] = []
        while not ready and time.monotonic() - since < patience_s:
            if self._stops():
                raise StoppedError
            ready = self._poll.poll(1000 * min(_CHECK_EVERY_S, patience_s))
        if not ready:
            for worker in [w for w in self._workers.values() if w.unanswered]:
                self._replace(worker, f"a worker did not answer for {patience_s:g} s")
        for connection, _ in ready:
            worker = self._workers[connection]
            try:
                group = worker.receive()
            except WorkerDiedError as death:
                self._replace(worker, str(death))
                continue
            if group is None:
                self._count_restart(worker.fault)
            else:
                self._unanswered[group] -= 1

    def _replace(self, worker: WorkerHandle, reason: str) -> None:
        self._count_restart(reason)
        del self._workers[(old := worker.connection.fileno())]
        self._poll.unregister(old)
        worker.restart()
        self._listen(worker)

    def _listen(self, worker: WorkerHandle) -> None:
        connection = worker.connection.fileno()
        self._workers[connection] = worker
        self._poll.register(connection, select.POLLIN)


def start_workers(
    config: EnvConfig,
    groups: Sequence[NDArray[np.intp]],
    num_workers: int,
    *,
    memory: int,
    hang_after_s: float,
    seed_stride: int,
    first_core: int | None,
    restore_seeds: Callable[[list[int]], None],
) -> list[WorkerHandle]:
    """Start the workers that hold all environments.

    Args:
        config: configuration of every environment.
        groups: the lanes of each group.
        num_workers: at most as many as environments.
        memory: file descriptor of the shared memory.
        hang_after_s: seconds after which a step counts as hanging.
        seed_stride: see `Job`.
        first_core: see `SharedVectorEnv`.
        restore_seeds: see `WorkerHandle`.
    """
    cores = usable_cores()
    # Several programs that use a few cores each should not all start with the first core.
    first = os.getpid() if num_workers < len(cores) else 0
    first = first if first_core is None else first_core
    num_envs = sum(map(len, groups))
    return [
        WorkerHandle(
            Job(asdict(config), num_envs, lanes, hang_after_s, seed_stride),
            memory,
            cores[(first + w) % len(cores)],
            restore_seeds,
        )
        for w, lanes in enumerate(deal_lanes(groups, num_workers))
    ]


def form_teams(
    workers: Sequence[WorkerHandle],
    patience_s: float,
    count_restart: Callable[[str], None],
    stops: Callable[[], bool],
) -> list[Team]:
    """Return the teams of workers: groups that have a worker in common belong to the same team.

    Args:
        workers: all of them.
        patience_s: see `Team`.
        count_restart: see `Team`.
        stops: see `Team`.
    """
    num_groups = len(workers[0].job.groups)
    holders = [[w for w in workers if w.job.groups[group]] for group in range(num_groups)]
    teams: list[Team] = []
    for group in range(num_groups):
        if all(group not in team.groups for team in teams):
            mates = [g for g in range(num_groups) if set(holders[g]) & set(holders[group])]
            teams.append(Team({g: holders[g] for g in mates}, patience_s, count_restart, stops))
    return teams


def deal_lanes(groups: Sequence[NDArray[np.intp]], num_workers: int) -> list[list[list[int]]]:
    """Deal the lanes of all groups to the workers, as evenly as cards.

    If the numbers allow it, workers form teams with two or more groups each, so that a worker that
    starts a new episode delays only its own team's groups.

    Args:
        groups: the lanes of each group.
        num_workers: at most as many as lanes.

    Returns:
        For each worker and each group, the worker's lanes.
    """
    fitting = [t for t in range(1, num_workers + 1) if num_workers % t == len(groups) % t == 0]
    num_teams = max((t for t in fitting if len(groups) >= 2 * t), default=1)
    hands: list[list[list[int]]] = [[[] for _ in groups] for _ in range(num_workers)]
    for g, group in enumerate(groups):
        team = hands[g % num_teams :: num_teams]
        # Each group continues where the team's last one stopped; otherwise the first worker would
        # get the remainder of every group.
        for card, lane in enumerate(group.tolist(), start=g // num_teams * len(group)):
            team[card % len(team)][g].append(lane)
    return hands


def usable_cores() -> list[int]:
    """Return the numbers of the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
