"""Predicting variables of the environment from features (Lample and Chaplot 2017, "game features").

Features from which health, ammunition or the presence of an enemy can be predicted are useful to
the policy too. The errors of the predictions show how much of the environment is perceived.

Axes: t and n steps and environments of a minibatch, T rollout length, N environments, K variables,
F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.errors import AgentError
from agents.objectives.objective import Objective, ObjectiveConfig
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch, Rollout
from perception.encoders import orthogonal
from perception.normalization import ObservationNormalizer

ENEMY_IN_VIEW = "ENEMY_IN_VIEW"
"""The variable that is 1 or 0, for yes or no; all others are numbers."""


@dataclass(frozen=True, kw_only=True)
class VariablesConfig(ObjectiveConfig):
    """Predicting game variables: features that contain health, ammunition, an enemy in view."""

    names: tuple[str, ...] = ()
    """Variables to predict, as in HEALTH AMMO2 ENEMY_IN_VIEW. Empty: health, the ammunition of the
    selected weapon, and whether an enemy is in view, as far as the environment reports them."""


_USUAL = ("HEALTH", "SELECTED_WEAPON_AMMO", "AMMO2", ENEMY_IN_VIEW)


class Variables(Objective[VariablesConfig]):
    """Predicts K numeric infos of the current observation from its features, by a linear layer.

    The loss of a number is the squared error, after normalisation by running statistics; that of
    `ENEMY_IN_VIEW` is the binary cross-entropy. The loss of the objective is their mean.
    """

    def __init__(
        self, policy: Policy, config: VariablesConfig, target_names: tuple[str, ...]
    ) -> None:
        super().__init__(policy, config, target_names)
        known = ", ".join(target_names) or "none"
        if missing := [name for name in config.names if name not in target_names]:
            raise AgentError(
                f"the objective variables needs {missing[0]}, which the environment does not "
                f"report; it reports: {known}"
            )
        self.targets = config.names or tuple(n for n in _USUAL if n in target_names)
        if not self.targets:
            raise AgentError(
                "the objective variables has nothing to predict: the environment reports none of "
                f"{', '.join(_USUAL)}; choose names of: {known}"
            )
        self.head = orthogonal(nn.Linear(policy.perception.num_features, len(self.targets)), 1.0)
        self.statistics = ObservationNormalizer(len(self.targets))
        self.to(policy.device)

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        targets = torch.stack([batch.targets[name] for name in self.targets], dim=-1)  # (t, n, K)
        predicted = self.head(output.features)
        normal = self.statistics(targets)
        losses = {
            name: F.binary_cross_entropy_with_logits(predicted[..., i], targets[..., i])
            if name == ENEMY_IN_VIEW
            else (predicted[..., i] - normal[..., i]).pow(2).mean()
            for i, name in enumerate(self.targets)
        }
        return torch.stack(list(losses.values())).mean(), losses

    def observe(self, policy: Policy, rollout: Rollout) -> None:
        """See `Objective.observe`."""
        stacked = torch.stack([rollout.targets[name] for name in self.targets], dim=-1)
        self.statistics.update(stacked.flatten(0, 1))
