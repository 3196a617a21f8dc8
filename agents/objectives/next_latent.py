"""Predicting the latents of the next steps (SPR, Schwarzer et al. 2021).

From the features of a step and the actions that follow, a transition model predicts what the
encoder computes from the observations that follow. Features then contain what can be controlled and
foreseen, and need no detail of images. Differences from the paper: the model starts with the
features of the memory, if there is one; targets are those of the encoder itself, without a moving
average (the paper's choice with augmentation, tau = 0), and without augmentation of images.

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
from agents.rollout import Minibatch


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

    Steps of the next episode and of the next rollout are no targets. `spread` is 1 if projections
    point in all directions, and 0 if the encoder computes the same for all observations.
    """

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
        self.projection = nn.Linear(latents, config.projection_size)
        self.predictor = nn.Linear(config.projection_size, config.projection_size)
        self.to(policy.device)

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        with torch.no_grad():
            targets = self.projection(latents_of(policy, output, batch))  # (t, n, Z)
        actions = encoded_actions(policy.action_space, batch.actions)  # (t, n, A)
        num_steps, state = len(actions), self.start(output.features)
        loss = torch.zeros((), device=state.device)
        for k in range(1, min(self.config.horizon, num_steps - 1) + 1):
            # The action of step t + k - 1 leads to step t + k, as long as that is in the rollout.
            state = self.advance(state[: num_steps - k], actions[k - 1 : num_steps - 1])
            predicted = self.predictor(self.projection(self.to_latent(state)))
            distance = 1.0 - F.cosine_similarity(predicted, targets[k:], dim=-1)
            mask = same_episode(batch.episode_starts, k)
            loss = loss + mean_where(distance, mask, num_steps) / self.config.horizon
        directions = F.normalize(targets, dim=-1).flatten(0, 1)
        return loss, {"spread": directions.var(0, correction=0).sum()}

    def advance(self, state: Tensor, actions: Tensor) -> Tensor:
        """Return the model's next state, (..., S), given the present one and (..., A) actions."""
        advanced: Tensor = state + self.transition(torch.cat((state, actions), dim=-1))
        return advanced


def latents_of(policy: Policy, output: PolicyOutput, batch: Minibatch) -> Tensor:
    """Return what the encoders compute from the observations of a minibatch, (t, n, E) float32."""
    if not policy.is_recurrent:
        return output.features.detach()
    parts = {name: batch.obs[name].flatten(0, 1) for name in policy.specs}
    latents: Tensor = policy.perception.encode(parts).unflatten(0, batch.episode_starts.shape)
    return latents
