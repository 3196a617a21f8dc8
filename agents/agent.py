"""What all agents share: configuration, and the update that makes a policy better by a rollout.

An agent is a subclass of `Agent` in a file of its own: a configuration, a way to estimate
advantages, and a loss. Axes: T rollout length, N environments, t, n a minibatch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from agents.device import single_thread
from agents.normalization import RewardScaler
from agents.policy import Policy
from agents.returns import explained_variance, gae, next_values
from agents.rollout import Minibatch, Rollout, minibatches
from agents.search import Choice, Range, SearchSpace
from perception.normalization import ObservationNormalizer

Metrics = dict[str, Tensor]


class NotFiniteError(ArithmeticError):
    """An update met NaN or infinity and was not made; the message says where."""


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Hyper-parameters that every agent has.

    Raises:
        ValueError: If a value is out of range.
    """

    rollout_length: int = 128
    """Env steps in each environment between two updates, T."""
    num_epochs: int = 1
    """Passes over a rollout in an update."""
    minibatch_size: int | None = None
    """Env steps in a minibatch. None: the whole rollout."""
    learning_rate: float = 2.5e-4
    """Step size of the optimiser."""
    anneal_learning_rate: bool = False
    """Lower the learning rate linearly to zero over the training."""
    gamma: float = 0.99
    """Discount of an env step."""
    gae_lambda: float = 0.95
    """Generalised advantage estimation: 0 trusts the values, 1 the rewards."""
    value_coef: float = 0.5
    """Weight of the critic's loss."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus, which keeps the policy exploring."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to at most this norm."""
    normalize_advantages: bool = True
    """Give the advantages of each minibatch mean 0 and deviation 1."""
    reward_scale: float = 1.0
    """Factor on rewards, for learning only: what is reported stays native."""
    clip_rewards: bool = False
    """Learn from the sign of rewards alone: what is reported stays native."""
    normalize_returns: bool = False
    """Divide rewards by the running deviation of returns, clipped to +-10; for learning only."""
    normalize_obs: bool = False
    """Normalise what is observed, screens and vectors, by running mean and deviation, saved with
    the policy."""

    # Few and coarse: a search of some dozen trainings cannot tell more apart.
    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(1e-5, 1e-2, log=True),
        "anneal_learning_rate": Choice((False, True)),
        "gamma": Choice((0.9, 0.95, 0.98, 0.99, 0.995, 0.999)),
        "entropy_coef": Choice((0.0, 0.001, 0.003, 0.01, 0.03)),
        "normalize_returns": Choice((False, True)),
    }

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("rollout_length", "num_epochs", "minibatch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("learning_rate", "max_grad_norm", "reward_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)}")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        for name in ("value_coef", "entropy_coef"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


ConfigT = TypeVar("ConfigT", bound=AgentConfig)


class Agent(ABC, Generic[ConfigT]):
    """Learns a policy from rollouts.

    Args:
        policy: what is learned, already on its device.
        config: hyper-parameters.
        num_envs: N.
        total_updates: over how many updates the learning rate is annealed.
    """

    def __init__(
        self, policy: Policy, config: ConfigT, *, num_envs: int, total_updates: int
    ) -> None:
        self.policy = policy
        self.config = config
        self.total_updates = total_updates
        self.num_updates = 0
        # The first version of the weights that has statistics of observations; None: not known yet.
        self._statistics_since: int | None = None
        # Into how many parts a minibatch is cut that are learned from side by side, a thread each:
        # worth it for images on a CPU.
        on_cpu, heavy = policy.device.type == "cpu", bool(policy.perception.heavy_modules)
        self._num_parts = torch.get_num_threads() if on_cpu and heavy else 1
        self.optimizer = self.make_optimizer()
        self.reward_scaler = RewardScaler(num_envs, config.gamma).to(policy.device)

    @property
    def value_unit(self) -> float:
        """How much native reward the critic calls 1."""
        deviation = self.reward_scaler.deviation if self.config.normalize_returns else 1.0
        return float(deviation) / self.config.reward_scale

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimiser: Adam, with the epsilon of OpenAI's baselines."""
        parameters, learning_rate = self.policy.parameters(), self.config.learning_rate
        return torch.optim.Adam(parameters, learning_rate, eps=1e-5, fused=True)

    def estimate(self, rollout: Rollout, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate how good each action was; GAE unless an agent says otherwise.

        Args:
            rollout: what happened.
            rewards: (T, N) float32, its rewards as scaled for learning.

        Returns:
            (T, N) float32 advantages, and (T, N) float32 returns for the critic to predict.
        """
        advantages = gae(
            rewards,
            rollout.values,
            following_values(rollout),
            rollout.dones,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
        )
        return advantages, advantages + rollout.values

    @abstractmethod
    def loss(self, batch: Minibatch) -> tuple[Tensor, Metrics]:
        """Compute the mean loss of a minibatch, a scalar, and what of it is worth logging."""

    def should_stop(self, metrics: Metrics) -> bool:
        """Tell, before a step of the optimiser, whether to leave the rest of the update."""
        return False

    def update(self, rollout: Rollout, *, version: int | None = None) -> dict[str, float]:
        """Improve the policy by what happened.

        Where observations are normalised, the first rollout gives their statistics, and nothing is
        learned from rollouts that were played without: who acted in them saw something else than
        who would learn.

        Args:
            rollout: what happened.
            version: `num_updates` when the weights were taken with which the rollout was played.
                None: they are the present ones.

        Returns:
            Metrics, averaged over the minibatches; none where nothing was learned.

        Raises:
            NotFiniteError: If the rollout, a loss or a gradient is not finite. The policy and the
                optimiser are then as before; the update counts as made.
        """
        version = self.num_updates if version is None else version
        self._anneal()
        self.num_updates += 1
        if name := rollout.first_not_finite():
            raise NotFiniteError(f"{name} of the rollout are not finite")
        if self.config.normalize_obs and self._statistics_since is None:
            self._statistics_since = self._first_statistics(rollout)
        if version < (self._statistics_since or 0):
            return {}
        before = [tensor.clone() for tensor in self._learned()]
        try:
            return self._update(rollout)
        except NotFiniteError:
            if len(self._learned()) > len(before):  # The optimiser had not begun.
                self.optimizer.state.clear()
            torch._foreach_copy_(self._learned(), before)
            raise

    def _update(self, rollout: Rollout) -> dict[str, float]:
        config = self.config
        rewards = self.scale(rollout.rewards, rollout.dones)
        advantages, returns = self.estimate(rollout, rewards)
        collected: dict[str, list[Tensor]] = defaultdict(list)
        stop = False
        for _ in range(config.num_epochs):
            for batch in minibatches(
                rollout,
                advantages,
                returns,
                minibatch_size=config.minibatch_size or rollout.rewards.numel(),
                recurrent=self.policy.is_recurrent,
            ):
                metrics = self._differentiate(batch)
                for name, value in metrics.items():
                    collected[name].append(value)
                stop = self.should_stop(metrics)
                if stop:
                    break
                norm = nn.utils.clip_grad_norm_(self.policy.parameters(), config.max_grad_norm)
                collected["grad_norm"].append(norm)
                self.optimizer.step()
            if stop:
                break
        metrics = {name: torch.stack(values).float().mean() for name, values in collected.items()}
        explained = explained_variance(rollout.values.flatten(), returns.flatten())
        metrics["explained_variance"] = explained
        # Read together, and only now: each reading waits for the GPU.
        means = dict(zip(metrics, torch.stack(list(metrics.values())).tolist(), strict=True))
        if not math.isfinite(means.get("grad_norm", 0.0)):
            raise NotFiniteError("the gradients are not finite")
        # The normalisers stand still while a rollout is collected and learned from.
        self.policy.observe(rollout.obs)
        return means | {"learning_rate": self.optimizer.param_groups[0]["lr"]}

    def _differentiate(self, batch: Minibatch) -> Metrics:
        """Set the gradient of the loss of a minibatch, and give what of it is worth logging.

        The minibatch is cut into parts, whose gradients are added up: so its cores meet once, not
        in every operation, and none waits for another that something else keeps busy.
        """
        batch = replace(batch, advantages=self.normalized(batch.advantages))
        parts = batch.cut(self._num_parts)
        if len(parts) == 1:
            gradients, metrics = self._gradients(batch, 1.0)
        else:
            weights = [part.actions.shape[1] / batch.actions.shape[1] for part in parts]
            with ThreadPoolExecutor(len(parts)) as threads:
                first, *others = threads.map(self._gradients_alone, parts, weights)
            gradients, metrics = first
            for more_gradients, more_metrics in others:
                torch._foreach_add_(gradients, more_gradients)
                metrics = {name: value + more_metrics[name] for name, value in metrics.items()}
        for parameter, gradient in zip(self.policy.parameters(), gradients, strict=True):
            parameter.grad = laid_out_as(parameter, gradient)
        return metrics

    def _gradients(self, part: Minibatch, weight: float) -> tuple[list[Tensor], Metrics]:
        """Give a part's gradients and metrics, times its weight in the minibatch."""
        loss, metrics = self.loss(part)
        gradients = torch.autograd.grad(loss * weight, list(self.policy.parameters()))
        return list(gradients), {name: value.detach() * weight for name, value in metrics.items()}

    def _gradients_alone(self, part: Minibatch, weight: float) -> tuple[list[Tensor], Metrics]:
        with single_thread():
            return self._gradients(part, weight)

    def scale(self, rewards: Tensor, dones: Tensor) -> Tensor:
        """Scale rewards for learning.

        Args:
            rewards: (T, N) float32, native.
            dones: (T, N) bool.
        """
        clipped = rewards.sign() if self.config.clip_rewards else rewards
        scaled = clipped * self.config.reward_scale
        if self.config.normalize_returns:
            scaled = self.reward_scaler(scaled, dones)
        return scaled

    def normalized(self, advantages: Tensor) -> Tensor:
        """Normalise a minibatch's advantages, if so configured."""
        if not self.config.normalize_advantages or advantages.numel() < 2:
            return advantages
        return (advantages - advantages.mean()) / (advantages.std() + 1e-8)

    def _first_statistics(self, rollout: Rollout) -> int:
        """Observe a rollout if nothing was before; return the first version that has statistics."""
        normalizers = [m for m in self.policy.modules() if isinstance(m, ObservationNormalizer)]
        if all(bool(normalizer.count > 0) for normalizer in normalizers):
            return 0  # The training was resumed: nobody plays with older weights.
        self.policy.observe(rollout.obs)
        return self.num_updates

    def _learned(self) -> list[Tensor]:
        """List what a step of the optimiser changes: weights, and its own statistics."""
        states = [state.values() for state in self.optimizer.state.values()]
        statistics = [value for values in states for value in values if isinstance(value, Tensor)]
        return [*(p.data for p in self.policy.parameters()), *statistics]

    def _anneal(self) -> None:
        if self.config.anneal_learning_rate:
            left = max(0.0, 1.0 - self.num_updates / self.total_updates)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * left


def laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient in the memory layout of its parameter, as `Tensor.backward` would leave it.

    `torch.autograd.grad` returns whatever layout the last operation made. Fused optimisers on a CPU
    step through the memory of parameter and gradient side by side, without checking that it
    matches.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, requires_grad=False).copy_(gradient)


def following_values(rollout: Rollout) -> Tensor:
    """Give the value of the state each step of a rollout led to, see `next_values`."""
    return next_values(
        rollout.values,
        rollout.last_values,
        rollout.final_values,
        rollout.terminated,
        rollout.truncated,
    )
