"""Distributions over actions of every supported kind, and the layer that computes them.

Axes: ... any leading axes (B, or T and N), A choices, D draws of an action, F features.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from perception.encoders import orthogonal

# With small initial weights, all actions are about equally likely (Andrychowicz et al. 2021).
_POLICY_GAIN = 0.01


class Distribution(ABC):
    """A batch of distributions over actions, with leading axes `...`."""

    @abstractmethod
    def sample(self, draws: Tensor) -> Tensor:
        """Return actions for given random numbers.

        Random numbers are arguments, so that actions do not depend on the grouping of environments.

        Args:
            draws: (..., D) float32, uniform in [0, 1); D is that of `num_draws`.

        Returns:
            (...) int64 for one choice; (..., A) int64 for several choices or switches; (..., A)
            float32 for continuous actions.
        """

    @abstractmethod
    def mode(self) -> Tensor:
        """Return the most likely actions, with the shape and dtype of `sample`."""

    @abstractmethod
    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the (...) float32 log-probabilities of actions, in nats.

        Args:
            actions: with the shape that `sample` returns.
        """

    @abstractmethod
    def entropy(self) -> Tensor:
        """Return the (...) float32 entropies, in nats."""

    @abstractmethod
    def kl(self, other: Any) -> Tensor:
        """Return the (...) float32 divergences KL(self || other), in nats.

        Args:
            other: distributions of the same kind.
        """

    @abstractmethod
    def probabilities(self) -> Tensor:
        """Return the (..., A) float32 probabilities of all choices; A is 0 if continuous."""


class Categorical(Distribution):
    """One choice of A.

    Args:
        logits: (..., A) float32.
    """

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = logits.log_softmax(-1)

    def sample(self, draws: Tensor) -> Tensor:
        """See `Distribution.sample`."""
        # The first choice whose cumulative probability exceeds the draw. The draw is multiplied by
        # the last cumulative probability, which differs from 1 by rounding.
        cumulated = self.log_probs.exp().cumsum(-1)
        return (cumulated <= draws * cumulated[..., -1:]).sum(-1)

    def mode(self) -> Tensor:
        """See `Distribution.mode`."""
        return self.log_probs.argmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """See `Distribution.log_prob`."""
        return self.log_probs.gather(-1, actions.long()[..., None])[..., 0]

    def entropy(self) -> Tensor:
        """See `Distribution.entropy`."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        """See `Distribution.kl`."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)

    def probabilities(self) -> Tensor:
        """See `Distribution.probabilities`."""
        return self.log_probs.exp()


class MultiCategorical(Distribution):
    """Independent choices.

    Args:
        logits: (..., A) float32, the logits of all choices, concatenated.
        sizes: the number of alternatives of each choice; they add up to A.
    """

    def __init__(self, logits: Tensor, sizes: Sequence[int]) -> None:
        self.parts = [Categorical(part) for part in logits.split(list(sizes), dim=-1)]

    def sample(self, draws: Tensor) -> Tensor:
        """See `Distribution.sample`."""
        each = zip(self.parts, draws.split(1, dim=-1), strict=True)
        return torch.stack([part.sample(draw) for part, draw in each], dim=-1)

    def mode(self) -> Tensor:
        """See `Distribution.mode`."""
        return torch.stack([part.mode() for part in self.parts], dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """See `Distribution.log_prob`."""
        each = zip(self.parts, actions.unbind(-1), strict=True)
        return torch.stack([part.log_prob(chosen) for part, chosen in each]).sum(0)

    def entropy(self) -> Tensor:
        """See `Distribution.entropy`."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def kl(self, other: MultiCategorical) -> Tensor:
        """See `Distribution.kl`."""
        pairs = zip(self.parts, other.parts, strict=True)
        return torch.stack([ours.kl(theirs) for ours, theirs in pairs]).sum(0)

    def probabilities(self) -> Tensor:
        """See `Distribution.probabilities`."""
        return torch.cat([part.probabilities() for part in self.parts], dim=-1)


class Bernoulli(Distribution):
    """Independent switches, each on or off.

    Args:
        logits: (..., A) float32, of being on.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def sample(self, draws: Tensor) -> Tensor:
        """See `Distribution.sample`."""
        return (draws < self.logits.sigmoid()).long()

    def mode(self) -> Tensor:
        """See `Distribution.mode`."""
        return (self.logits > 0).long()

    def log_prob(self, actions: Tensor) -> Tensor:
        """See `Distribution.log_prob`."""
        signs = 2.0 * actions - 1.0
        return nn.functional.logsigmoid(signs * self.logits).sum(-1)

    def entropy(self) -> Tensor:
        """See `Distribution.entropy`."""
        # H = softplus(x) - x sigmoid(x)
        each = nn.functional.softplus(self.logits) - self.logits * self.logits.sigmoid()
        return each.sum(-1)

    def kl(self, other: Bernoulli) -> Tensor:
        """See `Distribution.kl`."""
        # KL = p (x - y) - softplus(x) + softplus(y), with logits x and y
        softplus = nn.functional.softplus
        on = self.logits.sigmoid() * (self.logits - other.logits)
        return (on - softplus(self.logits) + softplus(other.logits)).sum(-1)

    def probabilities(self) -> Tensor:
        """See `Distribution.probabilities`."""
        return self.logits.sigmoid()


class Gaussian(Distribution):
    """Independent, normally distributed numbers.

    Args:
        mean: (..., A) float32.
        log_std: (A,) float32, the natural logarithms of the standard deviations.
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean = mean
        self.log_std = log_std.expand_as(mean)

    def sample(self, draws: Tensor) -> Tensor:
        """See `Distribution.sample`."""
        # Float32 draws are multiples of 2^-24. The centres of their intervals have finite
        # quantiles; 0 does not.
        noise: Tensor = torch.special.ndtri(draws.double() + 2.0**-25).float()
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        """See `Distribution.mode`."""
        return self.mean

    def log_prob(self, actions: Tensor) -> Tensor:
        """See `Distribution.log_prob`."""
        z = (actions - self.mean) / self.log_std.exp()
        return (-0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """See `Distribution.entropy`."""
        return (0.5 + 0.5 * math.log(2 * math.pi) + self.log_std).sum(-1)

    def kl(self, other: Gaussian) -> Tensor:
        """See `Distribution.kl`."""
        ratio = 2 * (self.log_std - other.log_std)
        z = (self.mean - other.mean) / other.log_std.exp()
        return 0.5 * (ratio.exp() - ratio - 1 + z**2).sum(-1)

    def probabilities(self) -> Tensor:
        """See `Distribution.probabilities`."""
        return self.mean[..., :0]


def num_draws(space: spaces.Space[Any]) -> int:
    """Return D, the number of uniform random numbers from which an action is sampled."""
    return int(np.prod(space.shape or (1,)))


class ActionHead(nn.Module):
    """Computes a distribution over an action space from features.

    Args:
        space: Discrete, MultiDiscrete, MultiBinary or a flat Box.
        num_features: F.

    Attributes:
        num_choices: A of `Distribution.probabilities`; 0 for continuous actions.

    Raises:
        ValueError: If the space is of another kind.
    """

    def __init__(self, space: spaces.Space[Any], num_features: int) -> None:
        super().__init__()
        self.space = space
        if isinstance(space, spaces.Discrete):
            self.sizes = [int(space.n)]
        elif isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
            self.sizes = [int(n) for n in space.nvec]
        elif isinstance(space, (spaces.MultiBinary, spaces.Box)) and len(space.shape) == 1:
            self.sizes = [space.shape[0]]
        else:
            raise ValueError(
                f"actions {space} are not supported; Discrete, MultiDiscrete, MultiBinary and "
                "flat Box are"
            )
        self.layer = orthogonal(nn.Linear(num_features, sum(self.sizes)), _POLICY_GAIN)
        self.num_choices = 0 if isinstance(space, spaces.Box) else sum(self.sizes)
        if isinstance(space, spaces.Box):
            self.log_std = nn.Parameter(torch.zeros(self.sizes[0]))

    def forward(self, features: Tensor) -> Distribution:
        """Return the distribution for (..., F) float32 features."""
        return self.distribution(self.layer(features))

    def distribution(self, outputs: Tensor) -> Distribution:
        """Return the distribution for (..., A) float32 outputs of the layer."""
        if isinstance(self.space, spaces.Discrete):
            return Categorical(outputs)
        if isinstance(self.space, spaces.MultiDiscrete):
            return MultiCategorical(outputs, self.sizes)
        if isinstance(self.space, spaces.MultiBinary):
            return Bernoulli(outputs)
        return Gaussian(outputs, self.log_std)
