"""Collecting the next rollout while the agent learns from the last one."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from agents.collector import Collected
from agents.sampler import Sampler
from agents.stopwatch import Stopwatch
from agents.transfer import stream_of, use_stream


class OverlappedSampler:
    """Collects rollouts in a separate thread, one rollout ahead of the agent. See `Collector`.

    When `collect` returns a rollout, collection of the next one starts with the current weights.
    By the time that one is returned, these weights are exactly one update old, whatever the timing.
    The policy must not be updated during a call of `collect`.

    Args:
        sampler: a sampler with two buffers; nothing else may use it from now on.

    Attributes:
        stopwatch: times of the thread that calls `collect`; waiting for a rollout counts as
            `rollout`.
    """

    def __init__(self, sampler: Sampler) -> None:
        assert sampler.num_buffers > 1, "one rollout is learned from while another is collected"
        self._sampler = sampler
        self.stopwatch = Stopwatch()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampler")
        # On a GPU, sampler and agent work at the same time, in separate streams.
        self._stream = torch.cuda.Stream() if stream_of(sampler.policy.device) else None
        self._next: Future[Collected] | None = None

    @property
    def sampler_stopwatch(self) -> Stopwatch:
        """The stopwatch of the thread that collects."""
        return self._sampler.stopwatch

    def collect(self, version: int = 0) -> Collected:
        """Wait for the rollout in progress, and start the next one; see `Collector.collect`."""
        if self._next is None:
            self._start(version)
        assert self._next is not None
        collected = self._next.result()
        if self._stream:
            learner = torch.cuda.current_stream()
            learner.wait_stream(self._stream)
            for tensor in collected.rollout.tensors().values():
                tensor.record_stream(learner)
        self.stopwatch.lap("rollout")
        self._start(version)
        return collected

    def state(self) -> dict[str, Tensor]:
        """See `Collector.state`; empty, because a rollout is always in progress."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> int:
        """See `Collector.load_state`; the state may be one of a `Sampler`."""
        return self._sampler.load_state(state)

    def close(self) -> None:
        """Wait for the rollout in progress, discard it, and end the threads."""
        self._thread.shutdown()
        self._sampler.close()

    def _start(self, version: int) -> None:
        self._sampler.policy.take_weights()
        if self._stream:
            # The weights must have been copied, and the oldest buffer, which is overwritten next,
            # must have been read.
            self._stream.wait_stream(torch.cuda.current_stream())
        self._next = self._thread.submit(self._run, version)

    def _run(self, version: int) -> Collected:
        self._sampler.stopwatch.lap("learner")
        with use_stream(self._stream):
            return self._sampler.run(version)
