"""The messages between the main process and a worker process, over a socket.

An environment's index among all N is its *lane*. Lanes are split into *groups*, which are sent
actions and received one at a time; a worker holds some lanes of each of its groups.

The main process first sends a `Job`, as a line of JSON. After that, a command is two bytes, a
letter and the index of a group, and so is the reply to it: the same two bytes, once the command has
been carried out. Observations, actions and rewards are not sent, but written into shared memory.

Commands:
    RESET: start episodes with the seeds in shared memory.
    STEP: take the actions in shared memory, and write the numeric infos.
    ACT: take the actions in shared memory, without the numeric infos, which take some time.
    RESTORE: followed by JSON: start episodes and take a list of actions in each.
    ASK: followed by JSON, a question (see `Lanes.ask`): RESULT with JSON precedes the reply.
    CLOSE: close the environments and exit; the group is ignored and there is no reply.

Further replies:
    FAULT: an environment failed and was replaced; the second byte is the length of the text that
        follows.
    FAILED: followed by JSON: the worker cannot continue, and the `reason`. Its length is sent
        too, because the stream ends with an error where commands were not read.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from envs.errors import EnvError

RESET, STEP, ACT, RESTORE, ASK, RESULT, CLOSE, FAULT, FAILED = b"rsapqncxf"
HUNG = 3  # exit status of a worker in which an environment hung
_LENGTH_BYTES = 8  # of the length of JSON, which precedes it


@dataclass(frozen=True)
class Job:
    """What a worker is to do; it is sent as JSON.

    Attributes:
        config: fields of the `EnvConfig` of every environment.
        num_envs: environments of all workers together, N.
        groups: for each group, the lanes (0 to N-1) that this worker holds.
        hang_after_s: seconds after which a step counts as hanging.
        seed_stride: difference between the seeds of an environment's consecutive episodes; 0: N.
        is_successor: whether it replaces a worker that died, so that its episodes were lost.
        attributes: by lane, which JSON makes a string, and name: what was set in environments, and
            is set again in those that replace them.
    """

    config: dict[str, Any]
    num_envs: int
    groups: list[list[int]]
    hang_after_s: float = 30.0
    seed_stride: int = 0
    is_successor: bool = False
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def lanes(self) -> list[int]:
        """The lanes of all groups."""
        return [lane for group in self.groups for lane in group]


def as_json(content: Mapping[Any, Any]) -> bytes:
    """Return JSON preceded by its length; keys become strings, and arrays become lists.

    Raises:
        EnvError: If a value cannot be written as JSON.
    """
    payload = json.dumps(content, default=to_builtin).encode()
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


def receive_json(connection: socket.socket) -> dict[str, Any]:
    """Receive what `as_json` returned."""
    length = int.from_bytes(connection.recv(_LENGTH_BYTES, socket.MSG_WAITALL), "big")
    content: dict[str, Any] = json.loads(connection.recv(length, socket.MSG_WAITALL))
    return content


def to_builtin(value: Any) -> Any:
    """Return NumPy's arrays and numbers as lists and numbers of Python."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise EnvError(
        f"{value!r} cannot be sent between processes; numbers, strings, lists and arrays can"
    )
