"""The base of all agents: hyper-parameters, and the update of a policy from a rollout.

To add an agent, write a file with a subclass of `AgentConfig` and one of `Agent`, which has a loss
and may have a different estimate of advantages, and add a line to `agents.AGENTS`. Axes: T rollout
length, N environments, t and n steps and environments of a minibatch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from agents.distributed import Averaging
from agents.errors import AgentError
from agents.gradients import GraphedGradients, Metrics, add_to, gradients_of, laid_out_as
from agents.normalization import RewardScaler
from agents.objectives.objective import GROUP, Objective, add_losses
from agents.policy import Policy, PolicyOutput
from agents.returns import explained_variance, gae, next_values
from agents.rollout import Minibatch, Rollout, minibatches
from agents.search_space import Choice, Range, SearchSpace


class NotFiniteError(ArithmeticError):
    """An update was undone because of NaN or infinity; the message names their place."""


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Hyper-parameters of every agent.

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
    encoder_learning_rate: float | None = None
    """Step size for image encoders, such as a pre-trained one. None: that of all; 0: they are
    frozen."""
    anneal_learning_rate: bool = False
    """Lower the learning rate linearly to zero over the training."""
    gamma: float = 0.99
    """Discount factor of an env step."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation (GAE): 0 relies on values, 1 on rewards."""
    value_coef: float = 0.5
    """Weight of the value loss."""
    loss_coef: float = 1.0
    """Weight of the agent's own loss. 0: learn from objectives alone, as from a teacher."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus, which keeps the policy exploring."""
    max_grad_norm: float = 0.5
    """Gradients with a larger norm are scaled down to it."""
    normalize_advantages: bool = True
    """Normalise the advantages of each minibatch to mean 0 and standard deviation 1."""
    reward_scale: float = 1.0
    """Factor on rewards, for learning only; reported rewards stay native."""
    clip_rewards: bool = False
    """Learn from the signs of rewards only; reported rewards stay native."""
    bootstrap_truncated: bool = True
    """Where time ran out, continue the return with the value of the last observation. False: treat
    it as an end, for learning only. With memory, a policy knows how old an episode is, and its
    values of the last observations, which nothing corrects, may grow without limit."""
    normalize_returns: bool = False
    """Divide rewards by the running standard deviation of returns and clip them to +-10; for
    learning only."""
    normalize_obs: bool = False
    """Normalise observations, screens and vectors, by their running mean and standard deviation,
    which are saved with the policy."""

    # Few and coarse values: a search of a few dozen training runs cannot distinguish more.
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
        for name in ("value_coef", "entropy_coef", "loss_coef", "encoder_learning_rate"):
            if not (getattr(self, name) or 0.0) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


_GRAD_NORM = "grad_norm"
_SHORTEST = 16  # Env steps of a sequence without memory: many short ones differ more than a few.

ConfigT = TypeVar("ConfigT", bound=AgentConfig)


class Agent(ABC, Generic[ConfigT]):
    """Trains a policy with rollouts.

    Parameters that do not require gradients are not changed, nor are those that the loss does not
    depend on.

    Args:
        policy: the policy to train, already on its device.
        config: hyper-parameters.
        num_envs: N.
        total_updates: the number of updates over which the learning rate is annealed.
        objectives: additional losses, by name.

    Raises:
        AgentError: If an objective needs longer rollouts.

    Attributes:
        policy: as above.
        config: as above.
        total_updates: as above.
        objectives: as above; empty if there are none.
        num_updates: the number of updates so far.
        optimizer: optimiser of `parameters`.
        reward_scaler: used if `normalize_returns` is configured.
        averaging: how it learns together with the same agent of other processes.
    """

    def __init__(
        self,
        policy: Policy,
        config: ConfigT,
        *,
        num_envs: int,
        total_updates: int,
        objectives: Mapping[str, Objective[Any]] | None = None,
    ) -> None:
        self.policy = policy
        self.config = config
        self.total_updates = total_updates
        self.objectives = dict(objectives or {})
        if config.encoder_learning_rate == 0:
            policy.perception.freeze_encoders()
        for name, objective in self.objectives.items():
            if objective.sequence_length > config.rollout_length:
                raise AgentError(
                    f"the objective {name} needs {objective.sequence_length} env steps in a row, "
                    f"but rollouts have {config.rollout_length}; raise --rollout-length"
                )
            objective.set_num_envs(num_envs)
        self.num_updates = 0
        # The first version of the weights with statistics of observations; None: not known yet.
        self._statistics_since: int | None = None
        # The number of parts into which a minibatch is split, each for a separate thread. This is
        # faster for images on a CPU.
        on_cpu, heavy = policy.device.type == "cpu", bool(policy.perception.heavy_modules)
        self._num_parts = torch.get_num_threads() if on_cpu and heavy else 1
        self.optimizer = self.make_optimizer()
        self._first_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.reward_scaler = RewardScaler(num_envs, config.gamma).to(policy.device)
        self.averaging = Averaging()
        self._graphed: GraphedGradients | None = None

    def capture_gradients(self) -> None:
        """Compute gradients as CUDA graphs from now on, except for updates with objectives."""
        self._graphed = GraphedGradients(self._loss_of_part)

    def learn_together(self, averaging: Averaging) -> None:
        """Learn together with the same agent of other processes from now on.

        All of them have the same state, except for what belongs to their environments.
        """
        self.averaging = averaging
        averaging.statistics([self.policy, self.reward_scaler, *self.objectives.values()])

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained: the policy's, then the objectives'."""
        modules: list[nn.Module] = [self.policy, *self.objectives.values()]
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    @property
    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters that are trained, in groups of the same learning rate."""
        rate = self.config.encoder_learning_rate
        if not rate:
            return [{"params": self.parameters}]
        of_encoders = set(self.policy.perception.encoder_parameters)
        return [
            {"params": [p for p in self.parameters if p not in of_encoders]},
            {"params": [p for p in self.parameters if p in of_encoders], "lr": rate},
        ]

    @property
    def target_names(self) -> tuple[str, ...]:
        """The numeric infos of observations that the objectives need, see `Rollout.targets`."""
        return tuple(dict.fromkeys(n for o in self.objectives.values() for n in o.targets))

    @property
    def _done(self) -> float:
        """The share of the training, in [0, 1], that was done before the current update."""
        return min(1.0, max(0, self.num_updates - 1) / self.total_updates)

    @property
    def coefs(self) -> dict[str, float]:
        """The weights of the objectives in the current update; those with weight 0 are left out."""
        configs = {name: objective.config for name, objective in self.objectives.items()}
        coefs = {name: config.coef * config.scale(self._done) for name, config in configs.items()}
        return {name: coef for name, coef in coefs.items() if coef > 0}

    def sequence_length(self, num_steps: int) -> int:
        """Return how many env steps in a row minibatches of a rollout consist of, a divisor of T.

        With memory, that is all of them. Without, it is 1, unless an objective compares more: then
        there are at least twice as many, because the last ones have nothing to be compared with.

        Args:
            num_steps: T.
        """
        if self.policy.is_recurrent:
            return num_steps
        least = max((self.objectives[name].sequence_length for name in self.coefs), default=1)
        if least == 1:
            return 1
        enough = min(num_steps, max(2 * least, _SHORTEST))
        return next(n for n in range(enough, num_steps + 1) if num_steps % n == 0)

    @property
    def value_unit(self) -> float:
        """The native reward that corresponds to a value of 1."""
        deviation = self.reward_scaler.deviation if self.config.normalize_returns else 1.0
        return float(deviation) / self.config.reward_scale

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser: Adam, with the epsilon of OpenAI's baselines."""
        return torch.optim.Adam(
            self.parameter_groups, self.config.learning_rate, eps=1e-5, fused=True
        )

    def estimate(self, rollout: Rollout, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate the advantages of actions, by GAE unless a subclass overrides this.

        Args:
            rollout: the rollout.
            rewards: (T, N) float32, its rewards as scaled for learning.

        Returns:
            (T, N) float32 advantages, and (T, N) float32 returns, the targets of the critic.
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
    def loss(self, output: PolicyOutput, batch: Minibatch) -> tuple[Tensor, Metrics]:
        """Compute the agent's mean loss of a minibatch, or of a part of one.

        The loss of a minibatch must be the mean of the losses of its parts, weighted by their
        sizes, because each thread of a CPU computes the loss of one part. Other losses belong in an
        objective that is not `splittable`.

        Args:
            output: the policy's output for the minibatch.
            batch: the minibatch.

        Returns:
            The loss, a scalar, and metrics to log, scalars.
        """

    def should_stop(self, metrics: Metrics) -> bool:
        """Return whether to skip this step of the optimiser and the rest of the update.

        Args:
            metrics: metrics of the current minibatch.
        """
        return False

    def update(self, rollout: Rollout, *, version: int | None = None) -> dict[str, float]:
        """Update the policy with a rollout.

        If observations are normalised, statistics are computed from the first rollout, and rollouts
        that were collected without statistics are not used for training.

        Args:
            rollout: the rollout.
            version: the value of `num_updates` when the weights that collected the rollout were
                copied. None: the current value.

        Returns:
            Metrics, averaged over the minibatches; empty if the rollout was not used for training.

        Raises:
            NotFiniteError: If the rollout or a gradient contains NaN or infinity. Parameters and
                optimiser are then unchanged, but `num_updates` is not.
        """
        version = self.num_updates if version is None else version
        self._anneal()
        self.num_updates += 1
        tensors, states = self._learned(), list(self.optimizer.state)
        copies = [tensor.clone() for tensor in tensors]
        try:
            metrics = self._checked_update(rollout, version)
        except NotFiniteError:
            torch._foreach_copy_(tensors, copies)
            for parameter in self.optimizer.state.keys() - set(states):  # Their first step.
                del self.optimizer.state[parameter]
            self._average_if_due()  # All ranks are here, since none of them keeps the update.
            raise
        self._average_if_due()
        return metrics

    def average_weights(self) -> None:
        """Average the weights of ranks that learn separately; without others, do nothing."""
        self.averaging.weights(self.parameters)

    def _average_if_due(self) -> None:
        if self.averaging.is_due(self.num_updates, self.total_updates):
            self.average_weights()

    def _checked_update(self, rollout: Rollout, version: int) -> dict[str, float]:
        part = rollout.first_not_finite()
        if what := self.averaging.first_problem(part and f"{part} of the rollout"):
            raise NotFiniteError(f"{what} are not finite")
        more = [self.objectives[name].targets_of(self.policy, rollout) for name in self.coefs]
        targets = {name: target for each in more for name, target in each.items()}
        rollout = replace(rollout, targets=rollout.targets | targets)
        if self.config.normalize_obs and self._statistics_since is None:
            self._statistics_since = self._first_statistics(rollout)
        if version < (self._statistics_since or 0):
            return {}
        return self._update(rollout)

    def _update(self, rollout: Rollout) -> dict[str, float]:
        config = self.config
        coefs = self.coefs
        collected: dict[str, list[Tensor]] = defaultdict(list)
        rewards = self.scale(rollout.rewards, rollout.dones)
        for name in coefs:
            objective = self.objectives[name]
            objective.observe(self.policy, rollout)
            for buffer in objective.averaged:
                self.averaging.means(getattr(objective, buffer))
        if not config.bootstrap_truncated:
            rollout = replace(rollout, terminated=rollout.dones)
        advantages, returns = self.estimate(rollout, rewards)
        for name in coefs:
            objective = self.objectives[name]
            if (more := objective.advantages(rollout)) is not None:
                advantages = advantages + objective.config.scale(self._done) * more
        stop = False
        for _ in range(config.num_epochs):
            for batch in minibatches(
                rollout,
                advantages,
                returns,
                minibatch_size=config.minibatch_size or rollout.rewards.numel(),
                length=self.sequence_length(len(rollout.rewards)),
            ):
                metrics = self._differentiate(batch)
                for name, value in metrics.items():
                    collected[name].append(value)
                for name, norm in self._clip_gradients().items():
                    collected[name].append(norm)
                stop = self.should_stop(metrics)
                if stop:
                    break
                self.optimizer.step()
            if stop:
                break
        metrics = {name: torch.stack(values).float().mean() for name, values in collected.items()}
        explained = explained_variance(rollout.values.flatten(), returns.flatten())
        metrics["explained_variance"] = explained
        values = self.averaging.means(torch.stack(list(metrics.values())))
        # Read together, and only now, because each reading waits for the GPU.
        means = dict(zip(metrics, values.tolist(), strict=True))
        norms = [value for name, value in means.items() if name.endswith(_GRAD_NORM)]
        if not all(map(math.isfinite, norms)):
            raise NotFiniteError("the gradients are not finite")
        # Only now, so that a rollout is collected and learned from with the same statistics.
        self.policy.observe(rollout.obs)
        means |= {f"{GROUP}{name}/coef": coef for name, coef in coefs.items()}
        return means | {"learning_rate": self.optimizer.param_groups[0]["lr"]}

    def _differentiate(self, batch: Minibatch) -> Metrics:
        """Set the gradients of the loss of a minibatch, and return its metrics."""
        batch = replace(batch, advantages=self.normalized(batch.advantages))
        loss, parameters = self._loss_of_part, self.parameters
        if self._graphed and not self.coefs:
            gradients, metrics = self._graphed(batch, parameters)
        else:
            gradients, metrics = gradients_of(loss, batch, parameters, self._num_parts)
        if self._active(splittable=False):
            more_gradients, more_metrics = gradients_of(self._loss_of_whole, batch, parameters)
            add_to(gradients, more_gradients)
            metrics |= more_metrics
        gradients, metrics = self.averaging.gradients(gradients, metrics, self.parameters)
        self.optimizer.zero_grad()  # Parameters may have been frozen since the last step.
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else laid_out_as(parameter, gradient)
        return metrics

    def _clip_gradients(self) -> Metrics:
        """Limit the norms of the gradients of the policy and of each objective; return the norms.

        Each has its own limit, so that the heads of an objective cannot slow down the policy.
        """
        modules = {_GRAD_NORM: self.policy} | {
            f"{GROUP}{name}/{_GRAD_NORM}": self.objectives[name] for name in self.coefs
        }
        largest = self.config.max_grad_norm
        return {
            name: nn.utils.clip_grad_norm_(module.parameters(), largest)
            for name, module in modules.items()
            if any(parameter.requires_grad for parameter in module.parameters())
        }

    def _loss_of_part(self, part: Minibatch) -> tuple[Tensor, Metrics]:
        """Return the agent's loss and those of splittable objectives, and their metrics."""
        output = self.policy(part.obs, part.memory_state, part.episode_starts)
        loss, metrics = self.loss(output, part)
        loss = self.config.loss_coef * loss
        active = self._active(splittable=True)
        return add_losses(loss, metrics, active, self.coefs, self.policy, output, part)

    def _loss_of_whole(self, batch: Minibatch) -> tuple[Tensor, Metrics]:
        """Return the losses of the objectives that are not splittable, and their metrics."""
        active = self._active(splittable=False)
        output: Any = None  # Not computed if no objective uses it.
        if any(objective.uses_output for objective in active.values()):
            output = self.policy(batch.obs, batch.memory_state, batch.episode_starts)
        zero = torch.zeros((), device=self.policy.device)
        return add_losses(zero, {}, active, self.coefs, self.policy, output, batch)

    def _active(self, *, splittable: bool) -> dict[str, Objective[Any]]:
        """Return the objectives with a weight, of those that are splittable or of the others."""
        active = {name: self.objectives[name] for name in self.coefs}
        return {name: o for name, o in active.items() if o.splittable == splittable}

    def scale(self, rewards: Tensor, dones: Tensor) -> Tensor:
        """Return rewards, (T, N) float32, scaled for learning.

        Args:
            rewards: (T, N) float32, native.
            dones: (T, N) bool, whether an episode ended with the step.
        """
        clipped = rewards.sign() if self.config.clip_rewards else rewards
        scaled = clipped * self.config.reward_scale
        if self.config.normalize_returns:
            scaled = self.reward_scaler(scaled, dones)
        return scaled

    def normalized(self, advantages: Tensor) -> Tensor:
        """Return the advantages of a minibatch, (t, n) float32, normalised if so configured."""
        if not self.config.normalize_advantages or advantages.numel() < 2:
            return advantages
        mean, deviation = self.averaging.mean_and_deviation(advantages)
        return (advantages - mean) / (deviation + 1e-8)

    def _first_statistics(self, rollout: Rollout) -> int:
        """Compute the statistics of observations, unless they were loaded.

        Returns:
            The first version of the weights with statistics.
        """
        if self.policy.perception.has_statistics:
            return 0  # No rollout is older than the statistics.
        self.policy.observe(rollout.obs)
        return self.num_updates

    def _learned(self) -> list[Tensor]:
        """Return the tensors that a step of the optimiser changes: parameters and its own state."""
        states = [state.values() for state in self.optimizer.state.values()]
        statistics = [value for values in states for value in values if isinstance(value, Tensor)]
        return [*(p.data for p in self.parameters), *statistics]

    def _anneal(self) -> None:
        if self.config.anneal_learning_rate:
            left = max(0.0, 1.0 - self.num_updates / self.total_updates)
            for group, first in zip(self.optimizer.param_groups, self._first_rates, strict=True):
                group["lr"] = first * left


def following_values(rollout: Rollout) -> Tensor:
    """Return the values of the states that follow each step, (T, N) float32; see `next_values`."""
    return next_values(
        rollout.values,
        rollout.last_values,
        rollout.final_values,
        rollout.terminated,
        rollout.truncated,
    )
