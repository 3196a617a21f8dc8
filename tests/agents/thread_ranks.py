"""Ranks that are threads of one process, for tests that need no processes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from agents.distributed import Ranks

_PATIENCE_S = 30.0


class ThreadRanks(Ranks):
    """One of several ranks, each a thread. Tensors are exchanged in a list that all share."""

    def __init__(self, rank: int, size: int, slots: list[Tensor], barrier: threading.Barrier):
        super().__init__(rank, size, rank, size)
        self._slots, self._barrier = slots, barrier

    def collect(self, tensor: Tensor) -> list[Tensor]:
        self._slots[self.rank] = tensor
        self._barrier.wait(_PATIENCE_S)
        found = [each.clone() for each in self._slots]
        self._barrier.wait(_PATIENCE_S)
        assert all(each.shape == tensor.shape and each.dtype == tensor.dtype for each in found)
        return found

    def add(self, tensor: Tensor) -> None:
        tensor.copy_(torch.stack(self.collect(tensor.clone())).sum(0))

    def collect_at_first(self, tensor: Tensor) -> list[Tensor]:
        found = self.collect(tensor)
        return found if self.is_first else []

    def copy_first(self, tensor: Tensor) -> None:
        # Only shapes and types must agree, which `collect` checks.
        tensor.copy_(self.collect(tensor.clone())[0])


def run_ranks(function: Callable[[Ranks], Any], size: int = 2) -> list[Any]:
    """Call a function once for each rank, and return the results; the first error is raised."""
    slots, barrier = [torch.empty(0)] * size, threading.Barrier(size)

    def run(rank: int) -> Any:
        try:
            return function(ThreadRanks(rank, size, slots, barrier))
        except BaseException:
            barrier.abort()  # The others must not wait for this one.
            raise

    with ThreadPoolExecutor(size) as threads:
        running = [threads.submit(run, rank) for rank in range(size)]
    errors = [error for each in running if (error := each.exception())]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return [each.result() for each in running]
