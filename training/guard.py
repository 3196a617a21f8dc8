"""What keeps a training run alive: updates that are not finite, disks that are full."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from agents import Agent
from agents.agent import NotFiniteError
from agents.collector import Collected
from agents.rollout import Rollout
from storage.files import FileError
from storage.run_folder import RunFolder
from storage.tensor_file import from_bytes, to_bytes, write_tensors
from training.errors import TrainingError
from training.progress import Progress

_SKIPPED_IN_A_ROW = 5  # Updates that were not finite, after which the training stops.


class GuardedUpdate:
    """Updates an agent, and skips updates that are not finite.

    Args:
        agent: the agent.
        folder: where the last rollout is written if the training stops.
        progress: counts skipped updates.
        say: is called with a line about the first one.
    """

    def __init__(
        self, agent: Agent[Any], folder: RunFolder, progress: Progress, say: Callable[[str], None]
    ) -> None:
        self._agent, self._folder, self._progress, self._say = agent, folder, progress, say
        self._in_a_row = 0

    def __call__(self, collected: Collected) -> dict[str, float]:
        """Update, see `Agent.update`, and return the metrics; empty if the update was skipped.

        Raises:
            TrainingError: If too many updates in a row were not finite.
        """
        try:
            metrics = self._agent.update(collected.rollout, version=collected.version)
        except NotFiniteError as error:
            self._in_a_row += 1
            self._progress.skipped_updates += 1
            if self._in_a_row == _SKIPPED_IN_A_ROW:
                kept = self._keep(collected.rollout, str(error))
                raise TrainingError(
                    f"{error}, in {self._in_a_row} updates in a row{kept}"
                ) from error
            if self._progress.skipped_updates == 1:
                self._say(f"{error}: this update is skipped; further ones are only counted")
            return {}
        self._in_a_row = 0
        return metrics

    def _keep(self, rollout: Rollout, what: str) -> str:
        """Write the last rollout of the rank whose rollout is not finite, and say where it is."""
        ranks, file = self._agent.averaging.ranks, self._folder.not_finite_file
        broken = ranks.exchange(rollout.first_not_finite() is not None)
        owner = broken.index(True) if True in broken else 0
        mine = to_bytes(rollout.tensors()) if ranks.rank == owner else b""
        found = ranks.bring_to_first(mine)
        if not ranks.is_first:  # Rank 0 owns the folder.
            return ""
        with continuing_without_disk(self._say) as written:
            write_tensors(file, from_bytes(found[owner]), {"what": what})
            written.append(True)
        return f"; {file} holds the last rollout" if written else ""


@contextlib.contextmanager
def continuing_without_disk(say: Callable[[str], None]) -> Iterator[list[bool]]:
    """Report what cannot be written, because a disk is full or gone, and continue.

    Yields:
        A list to which the caller may append at the end, to see whether the end was reached.
    """
    reached: list[bool] = []
    try:
        yield reached
    except FileError as error:
        say(f"{error}; continuing, to try again later")
    except OSError as error:
        where = error.filename or "a file"
        say(f"{where} cannot be written ({error.strerror}); continuing, to try again later")
