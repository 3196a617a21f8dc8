"""Predicting the latents of the next steps (SPR, Schwarzer et al. 2021).

From the features of a step and the actions that follow, a transition model predicts what the
encoder computes from the observations that follow. Features then contain what can be controlled and
foreseen, and need no detail of images. Differences from the paper: the model starts with the
features of the memory, if there is one; images are not augmented; targets are those of the encoder
as it was before the update, not of a moving average. They are standardised with their mean and
deviation in the rollout: else an encoder whose outputs have a large mean would be predicted well by
a constant, and would come to compute nothing else.

Axes: t and n steps and environments of a minibatch, F features, E numbers that all encoders
compute, S width of the model's state, Z width of the projection, A numbers that encode an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.objectives.objective import Objective, ObjectiveConfig, check_positive
from agents.objectives.sequences import (
    encoded_actions,
    mean_where,
    num_action_inputs,
    same_episode,
)
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch, Rollout

_LEAST_SHARE = 0.1  # Of the mean deviation, that is added to each.
_LEAST = 1e-6  # Where an encoder computes the same for all observations.
_AT_ONCE = 8  # Env steps that are encoded at once.
_LATENTS = "next_latent/latents"  # (T, N, E) float32, among the targets.


@dataclass(frozen=True, kw_only=True)
class NextLatentConfig(ObjectiveConfig):
    """Predicting the encoder's next outputs: features of what can be controlled and foreseen."""

    coef: float = 0.5
    """Weight of the loss, relative to the agent's own. 0: the objective is not computed."""
    horizon: int = 5
    """How many env steps ahead is predicted; the paper's K."""
    state_size: int = 256
    """Width of the state of the transition model."""
    projection_size: int = 128
    """Width of the vectors that are compared."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_positive(self, "horizon", "state_size", "projection_size")


class NextLatent(Objective[NextLatentConfig]):
    """The mean of 1 - cosine of predicted and true projections, one to `horizon` steps ahead.

    Steps of the next episode and of the next rollout are no targets. `constant` is the loss of the
    best prediction that is always the same.

    Attributes:
        mean: the mean of what the encoders computed for the last rollout, (E,) float32.
        square: the mean of its square, (E,) float32.
    """

    averaged = ("mean", "square")
    mean: Tensor
    square: Tensor

    def __init__(
        self, policy: Policy, config: NextLatentConfig, target_names: tuple[str, ...]
    ) -> None:
        super().__init__(policy, config, target_names)
        self.sequence_length = config.horizon + 1
        perception = policy.perception
        features, latents = perception.num_features, perception.num_encoded_features
        actions, size = num_action_inputs(policy.action_space), config.state_size
        self.start = nn.Linear(features, size)
        self.transition = nn.Sequential(
            nn.Linear(size + actions, size), nn.ReLU(), nn.Linear(size, size)
        )
        self.to_latent = nn.Linear(size, latents)
        self.projection = nn.Linear(latents, config.projection_size, bias=False)
        self.predictor = nn.Linear(config.projection_size, config.projection_size)
        self.register_buffer("mean", torch.zeros(latents), persistent=False)
        self.register_buffer("square", torch.ones(latents), persistent=False)
        self.to(policy.device)

    @torch.no_grad()
    def targets_of(self, policy: Policy, rollout: Rollout) -> dict[str, Tensor]:
        """Return what the encoders compute for the rollout; see `Objective.targets_of`."""
        parts = {name: rollout.obs[name] for name in policy.specs}
        # Some steps at a time, because the layers of whole rollouts may not fit into memory.
        latents = [
            policy.perception.encode(
                {name: part[t : t + _AT_ONCE].flatten(0, 1) for name, part in parts.items()}
            )
            for t in range(0, len(rollout.episode_starts), _AT_ONCE)
        ]
        return {_LATENTS: torch.cat(latents).unflatten(0, rollout.episode_starts.shape)}

    def observe(self, policy: Policy, rollout: Rollout) -> None:
        """See `Objective.observe`."""
        latents = rollout.targets[_LATENTS].flatten(0, 1)
        self.mean, self.square = latents.mean(0), latents.square().mean(0)

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        with torch.no_grad():
            latents = self.standardized(batch.targets[_LATENTS])
            targets = F.normalize(self.projection(latents), dim=-1)  # (t, n, Z)
            mean = F.normalize(targets.mean((0, 1)), dim=-1)
            from_mean = 1.0 - targets @ mean
        actions = encoded_actions(policy.action_space, batch.actions)  # (t, n, A)
        features = output.features
        state = self.start(features if policy.is_recurrent else self.standardized(features))
        num_steps = len(actions)
        loss, constant = torch.zeros(2, device=state.device)
        for k in range(1, min(self.config.horizon, num_steps - 1) + 1):
            # The action of step t + k - 1 leads to step t + k, as long as that is in the rollout.
            state = self.advance(state[: num_steps - k], actions[k - 1 : num_steps - 1])
            predicted = self.predictor(self.projection(self.to_latent(state)))
            distance = 1.0 - F.cosine_similarity(predicted, targets[k:], dim=-1)
            mask = same_episode(batch.episode_starts, k)
            loss = loss + mean_where(distance, mask, num_steps) / self.config.horizon
            constant = constant + mean_where(from_mean[k:], mask, num_steps) / self.config.horizon
        return loss, {"constant": constant}

    def standardized(self, latents: Tensor) -> Tensor:
        """Return (..., E) latents with mean 0 and, if they vary, deviation 1 in the rollout."""
        deviation = (self.square - self.mean.square()).clamp(min=0.0).sqrt()
        # Numbers that hardly vary are not magnified to the size of the others.
        return (latents - self.mean) / (deviation + _LEAST_SHARE * deviation.mean() + _LEAST)

    def advance(self, state: Tensor, actions: Tensor) -> Tensor:
        """Return the model's next state, (..., S), given the present one and (..., A) actions."""
        advanced: Tensor = state + self.transition(torch.cat((state, actions), dim=-1))
        return advanced
