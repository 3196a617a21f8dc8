"""The threads in each worker that watch the main process, and environments that hang."""

from __future__ import annotations

import os
import threading
import time

from envs.doom.engine import abandon_engines
from envs.vector.lanes import Lanes
from envs.vector.messages import HUNG

_CHECK_EVERY_S = 0.5


class ParentWatch(threading.Thread):
    """Ends the worker once the main process is gone, whatever the worker is doing.

    Args:
        parent: process id of the main process.
    """

    def __init__(self, parent: int) -> None:
        super().__init__(daemon=True)
        self._parent = parent

    def run(self) -> None:
        """Check at regular intervals, as long as the main process lives."""
        while os.getppid() == self._parent:
            time.sleep(_CHECK_EVERY_S)
        abandon_engines()
        os._exit(0)


class Watchdog(threading.Thread):
    """Ends environments that hang.

    An engine that hangs is killed, so that the call that waits for it raises. Another environment
    that hangs, or one whose engine was killed in vain, ends the worker with exit status `HUNG`.

    Args:
        lanes: the environments of the worker.
        hang_after_s: seconds after which an env step counts as hung.
    """

    def __init__(self, lanes: Lanes, hang_after_s: float) -> None:
        super().__init__(daemon=True)
        self._lanes, self._hang_after_s = lanes, hang_after_s

    def run(self) -> None:
        """Check at regular intervals, as long as the worker lives."""
        count, since, was_ended = -1, 0.0, False
        while True:
            time.sleep(min(_CHECK_EVERY_S, self._hang_after_s / 4))
            if not self._lanes.busy or self._lanes.count != count:
                count, since, was_ended = self._lanes.count, time.monotonic(), False
            elif time.monotonic() - since > self._hang_after_s:
                if was_ended:  # It hangs although its engine was killed.
                    os._exit(HUNG)
                self._lanes.end_hanging()
                since, was_ended = time.monotonic(), True
