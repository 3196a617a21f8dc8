"""Collecting the next rollout while the last one is learned from."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from agents.sampler import Collected, Sampler
from agents.stopwatch import Stopwatch
from agents.transfer import stream_of, use_stream


class OverlappedSampler:
    """Plays in a thread of its own, one rollout ahead of the learner.

    A rollout is begun with the weights of the moment the one before it is handed over: it is played
    with the weights of one update ago, never older ones, and which those are does not depend on who
    is faster. The learner must therefore stand still while it asks for a rollout.

    Args:
        sampler: with room for two rollouts; it belongs to this one from now on.
    """

    def __init__(self, sampler: Sampler) -> None:
        assert sampler.num_buffers > 1, "one rollout is learned from while another is made"
        self._sampler = sampler
        self.stopwatch = Stopwatch()  # of the learner, which waits for a `rollout`
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampler")
        # On a GPU the two sides' work goes side by side, in a stream each.
        self._stream = torch.cuda.Stream() if stream_of(sampler.policy.device) else None
        self._in_the_making: Future[Collected] | None = None

    def collect(self, version: int = 0) -> Collected:
        """Wait for the rollout in the making, and let the next one begin; see `Sampler.collect`."""
        if self._in_the_making is None:
            self._begin(version)
        assert self._in_the_making is not None
        collected = self._in_the_making.result()
        if self._stream:
            learner = torch.cuda.current_stream()
            learner.wait_stream(self._stream)
            for tensor in collected.rollout.tensors().values():
                tensor.record_stream(learner)
        self.stopwatch.lap("rollout")
        self._begin(version)
        return collected

    def close(self) -> None:
        """Wait until the rollout in the making is played; it is dropped."""
        self._thread.shutdown()
        self._sampler.close()

    def _begin(self, version: int) -> None:
        self._sampler.policy.take_weights()
        if self._stream:  # The weights are taken, and the rollout's old place has been read.
            self._stream.wait_stream(torch.cuda.current_stream())
        self._in_the_making = self._thread.submit(self._play, version)

    def _play(self, version: int) -> Collected:
        self._sampler.stopwatch.lap("learner")
        with use_stream(self._stream):
            return self._sampler.play(version)
