"""Running mean and variance, with which observations are normalised.

Axes: B batch, D numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Moments = tuple[Tensor, Tensor, int | Tensor]
"""Mean and variance of a batch, (D,) float64, and the number of its vectors, maybe as a scalar."""


def _alone(mean: Tensor, variance: Tensor, count: int) -> Iterable[Moments]:
    return ((mean, variance, count),)


class RunningMeanStd(nn.Module):
    """Mean and variance of all batches so far (Chan et al. 1982, parallel algorithm).

    The statistics are buffers: they are saved and loaded with the module that contains this one.

    Args:
        size: D.

    Attributes:
        mean: (D,) float64.
        variance: (D,) float64, of the population.
        count: the number of vectors so far, a float64 scalar.
        batches: returns the moments of all batches that the statistics are updated with, for those
            of one: several if other processes have batches, too.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    batches: Callable[[Tensor, Tensor, int], Iterable[Moments]]

    def __init__(self, size: int) -> None:
        super().__init__()
        self.batches = _alone
        # In double precision, because counts grow to billions.
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def deviation(self) -> Tensor:
        """Square root of the variance, (D,) float64, never zero."""
        return (self.variance + 1e-8).sqrt()

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        """Update the statistics with a (B, D) batch of any dtype."""
        batch = batch.double()
        self.merge(batch.mean(0), batch.var(0, unbiased=False), len(batch))

    @torch.no_grad()
    def merge(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the statistics with those of another batch.

        Args:
            mean: (D,) float64.
            variance: (D,) float64, of the population.
            count: the number of vectors in the batch.
        """
        for moments in self.batches(mean, variance, count):
            self._merge(*moments)

    def _merge(self, mean: Tensor, variance: Tensor, count: int | Tensor) -> None:
        total = self.count + count
        delta = mean - self.mean
        squares = self.variance * self.count + variance * count
        squares = squares + delta**2 * self.count * count / total
        self.mean.add_(delta * count / total)
        self.variance.copy_(squares / total)
        self.count.copy_(total)


class ObservationNormalizer(RunningMeanStd):
    """Shifts and scales numbers to mean 0 and variance 1, and clips them to +-10."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Return (..., D) float32 vectors normalised, float32, computed in double precision."""
        return self.normalize(vectors.double()).float()

    def normalize(self, numbers: Tensor) -> Tensor:
        """Return (..., n * D) numbers normalised, with the same statistics for each group of D.

        Args:
            numbers: (..., n * D); the dtype of the result, and of the computation, is theirs.
        """
        times = numbers.shape[-1] // self.mean.numel()
        mean, deviation = (s.to(numbers.dtype).repeat(times) for s in (self.mean, self.deviation))
        return (numbers - mean).div_(deviation).clamp_(-10.0, 10.0)
