"""Exploration by random network distillation (RND, Burda et al. 2019).

A predictor learns to compute what a fixed random network, the target, computes from observations.
Its error is high for observations unlike those so far, and is an intrinsic reward for reaching
them. Intrinsic rewards are for learning only: all reported rewards stay native. As in the paper,
observations are normalised by their running mean and deviation and clipped to +-5, and intrinsic
rewards are divided by the running deviation of their discounted sum. A critic of their own learns
intrinsic returns, which do not end with episodes: otherwise, all novelty being positive, it would
pay to avoid ends. The advantages of both kinds of rewards are added.

Differences from the paper:
- The critic of intrinsic rewards is a separate network, of what the predictor sees, instead of a
  second head of the policy's network, which every policy would have to have for one objective.
- The statistics of observations start with the first rollout instead of a random policy's steps.
- Networks are small and fully connected, and images are thumbnails: novelty then costs a small
  share of an update, also on a CPU.
- The predictor is trained with all env steps; the paper leaves some out with many environments.

Axes: T rollout length, N environments, t and n steps and environments of a minibatch, D numbers of
an observation, Z outputs of the networks.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agents.errors import AgentError
from agents.objectives.objective import Objective, ObjectiveConfig, check_positive
from agents.objectives.thumbnails import Thumbnails
from agents.policy import Policy, PolicyOutput
from agents.returns import gae
from agents.rollout import Minibatch, Rollout
from perception import VectorSpec
from perception.encoders import orthogonal
from perception.normalization import ObservationNormalizer, RunningMeanStd

_CLIP = 5.0  # The paper's, of normalised observations.
_LAMBDA = 0.95  # The paper's, of GAE.
_NUMBERS, _REWARDS = "rnd/numbers", "rnd/rewards"
_ADVANTAGES, _RETURNS = "rnd/advantages", "rnd/returns"


@dataclass(frozen=True, kw_only=True)
class RNDConfig(ObjectiveConfig):
    """Intrinsic rewards for what is new: exploration where rewards are rare."""

    reward_coef: float = 0.5
    """Weight of the advantages of intrinsic rewards, which are normalised, beside those of the
    agent's scaled rewards; the schedule applies to it, too."""
    reward_gamma: float = 0.99
    """Discount factor of intrinsic rewards."""
    cell_size: int = 4
    """Side of the squares of an image whose mean colours are observed, in pixels."""
    hidden_size: int = 256
    """Width of the hidden layers."""
    embedding_size: int = 64
    """Number of outputs that are predicted."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_positive(self, "cell_size", "hidden_size", "embedding_size")
        if not self.reward_coef >= 0:
            raise ValueError(f"reward_coef must not be negative, got {self.reward_coef}")
        if not 0 <= self.reward_gamma < 1:
            raise ValueError(
                f"reward_gamma must be at least 0 and less than 1, got {self.reward_gamma}"
            )


class RND(Objective[RNDConfig]):
    """The squared error of a predictor of a random network, and advantages where it will be high.

    Attributes:
        target: the random network, (..., D) to (..., Z).
        predictor: the network that is trained to compute the same.
        critic: the network that is trained to compute intrinsic returns, (..., D) to (..., 1).
        seen: the statistics of observations.
        sums: the statistics of discounted sums of intrinsic rewards.
        running: these sums after the last step, (N,) float32.
    """

    of_envs = ("running",)
    running: Tensor

    def __init__(self, policy: Policy, config: RNDConfig, target_names: tuple[str, ...]) -> None:
        super().__init__(policy, config, target_names)
        self.thumbnails = Thumbnails(policy, config.cell_size)
        specs = policy.specs
        self.vectors = [name for name, spec in specs.items() if isinstance(spec, VectorSpec)]
        size = self.thumbnails.size + sum(
            spec.size for spec in specs.values() if isinstance(spec, VectorSpec)
        )
        hidden, outputs = config.hidden_size, config.embedding_size
        if not size:
            raise AgentError(
                "the objective rnd needs images or vectors, but the observations contain neither; "
                "remove the objective"
            )
        self.target = _layers(size, hidden, outputs).requires_grad_(requires_grad=False)
        self.predictor = _layers(size, hidden, hidden, outputs)
        self.critic = _layers(size, hidden, 1)
        self.seen, self.sums = ObservationNormalizer(size), RunningMeanStd(1)
        self.register_buffer("running", torch.zeros(0))
        self.to(policy.device)

    def set_num_envs(self, num_envs: int) -> None:
        """See `Objective.set_num_envs`."""
        self.running = self.running.new_zeros(num_envs)

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        normal = batch.targets[_NUMBERS]
        value_loss = (self.value(normal) - batch.targets[_RETURNS]).square().mean()
        return self.novelty(normal).mean() + value_loss, {
            "value_loss": value_loss,
            "reward": batch.targets[_REWARDS].mean(),
        }

    @torch.no_grad()
    def targets_of(self, policy: Policy, rollout: Rollout) -> dict[str, Tensor]:
        """Return intrinsic rewards, their advantages by GAE, and their returns, (T, N) each.

        Observations are returned as normalised numbers, (T, N, D), too: `loss` needs them in every
        epoch.

        The reward of a step is the novelty of the observation that it led to; with the last step of
        an episode, that is the first observation of the next one.

        Raises:
            ValueError: If the rollout lacks the observations after its last step.
        """
        if rollout.last_obs is None:
            raise ValueError("the objective rnd needs the last observations of rollouts")
        # Step by step, because whole images of a rollout may not fit into memory.
        steps = [
            self.numbers({name: part[t] for name, part in rollout.obs.items()})
            for t in range(len(rollout.rewards))
        ]
        numbers = torch.stack([*steps, self.numbers(rollout.last_obs)])  # (T + 1, N, D)
        self.seen.update(numbers[1:].flatten(0, 1))
        normal = self.normalized(numbers)
        novelty, values = self.novelty(normal[1:]), self.value(normal)
        gamma, sums = self.config.reward_gamma, []
        for each in novelty:
            self.running = gamma * self.running + each
            sums.append(self.running)
        self.sums.update(torch.stack(sums).reshape(-1, 1))
        rewards = novelty / self.sums.deviation.float()
        advantages = gae(
            rewards,
            values[:-1],
            values[1:],
            torch.zeros_like(rollout.dones),
            gamma=gamma,
            gae_lambda=_LAMBDA,
        )
        returns = advantages + values[:-1]
        return {
            _NUMBERS: normal[:-1],
            _REWARDS: rewards,
            _ADVANTAGES: advantages,
            _RETURNS: returns,
        }

    def advantages(self, rollout: Rollout) -> Tensor:
        """See `Objective.advantages`."""
        return self.config.reward_coef * rollout.targets[_ADVANTAGES]

    def numbers(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return observations as numbers, (..., D) float32: thumbnails, then vectors.

        Args:
            obs: parts by name, each (..., H, W, C) uint8 or (..., size) float32.
        """
        images = [part.flatten(-3) for part in self.thumbnails(obs).values()]
        return torch.cat([*images, *(obs[name] for name in self.vectors)], dim=-1)

    def normalized(self, numbers: Tensor) -> Tensor:
        """Return (..., D) numbers normalised and clipped."""
        normal: Tensor = self.seen(numbers)
        return normal.clamp(-_CLIP, _CLIP)

    def novelty(self, normal: Tensor) -> Tensor:
        """Return the mean squared errors of the predictor, (...) float32.

        Args:
            normal: (..., D) normalised numbers.
        """
        errors: Tensor = (self.predictor(normal) - self.target(normal)).square().mean(-1)
        return errors

    def value(self, normal: Tensor) -> Tensor:
        """Return the expected intrinsic returns, (...) float32, for (..., D) normalised numbers."""
        values: Tensor = self.critic(normal)
        return values.squeeze(-1)


def _layers(*sizes: int) -> nn.Sequential:
    """Return linear layers of given sizes with ReLUs between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [orthogonal(nn.Linear(inputs, outputs)), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
