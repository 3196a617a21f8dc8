"""Learning to change the image (pixel control; UNREAL, Jaderberg et al. 2017).

The image is divided into cells, and an auxiliary policy for each of them would earn the mean
absolute change of its pixels. Their action values are learned by n-step Q-learning from the
features, which then contain what the agent can influence.

Differences from the paper: sequences are those of the rollout, not of a replay buffer; the value
that a return ends with is that of the present weights, not of older ones, though no gradient flows
through it; the image is not cropped; rewards are scaled so that returns are about 1, and errors are
averaged over cells, so that the weight does not depend on the size of images. The last image of an
episode is not stored, so that the value of the last known one replaces the rest of the return. If
an action consists of several choices, the advantages of their alternatives are added. As in the
paper, returns contain the rewards of the actions that the agent chose, also where they were not the
best ones.

Axes: t and n steps and environments of a minibatch, A alternatives of all choices, h, w cells, F
features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agents.errors import AgentError
from agents.objectives.objective import Objective, ObjectiveConfig, check_positive
from agents.objectives.sequences import (
    choice_sizes,
    encoded_actions,
    mean_where,
    same_episode,
    sample_pairs,
)
from agents.objectives.thumbnails import Thumbnails, require_images
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch, Rollout
from perception.encoders import orthogonal
from perception.normalization import RunningMeanStd

_CHANNELS = 32  # Of the layer before the values, as in the paper.
_LEAST_CHANGE = 1e-4  # Of numbers in [0, 1], where no image changes.


@dataclass(frozen=True, kw_only=True)
class PixelControlConfig(ObjectiveConfig):
    """Learning to change the image: features of what the agent can influence."""

    coef: float = 0.5
    """Weight of the loss, relative to the agent's own. 0: the objective is not computed."""
    cell_size: int = 4
    """Side of the cells whose changes are rewards, in pixels."""
    gamma: float = 0.9
    """Discount factor of these rewards in an env step."""
    num_steps: int = 20
    """Rewards in a return, at most; the value of what follows is added."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_positive(self, "cell_size", "num_steps")
        if not 0 <= self.gamma < 1:
            raise ValueError(f"gamma must be at least 0 and less than 1, got {self.gamma}")


class DuelingHead(nn.Module):
    """Computes the action values of cells: a value, and an advantage for each alternative.

    The layers are the paper's: one that is fully connected, then a transposed convolution with
    kernels of 4 x 4 and stride 2.

    Args:
        num_features: F.
        sizes: the number of alternatives of each choice; they add up to A.
        cells: (h, w).
    """

    def __init__(self, num_features: int, sizes: list[int], cells: tuple[int, int]) -> None:
        super().__init__()
        self.sizes, self.cells = sizes, cells
        # A transposed convolution makes 2 h + 2 cells of h.
        coarse = tuple(max(1, -(-(length - 2) // 2)) for length in cells)
        self.layer = nn.Sequential(
            orthogonal(nn.Linear(num_features, _CHANNELS * coarse[0] * coarse[1])),
            nn.ReLU(),
            nn.Unflatten(-1, (_CHANNELS, *coarse)),
        )
        self.deconvolution = nn.ConvTranspose2d(_CHANNELS, 1 + sum(sizes), 4, stride=2)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute values and advantages; an action value is the value plus those of its choices.

        Args:
            features: (t, n, F) float32.

        Returns:
            (t, n, h, w) float32 values, and (t, n, A, h, w) float32 advantages, whose mean over the
            alternatives of a choice is 0.
        """
        maps = self.deconvolution(self.layer(features.flatten(0, 1)))
        maps = maps[..., : self.cells[0], : self.cells[1]].unflatten(0, features.shape[:2])
        value, advantages = maps[:, :, 0], maps[:, :, 1:].split(self.sizes, dim=2)
        return value, torch.cat([each - each.mean(2, keepdim=True) for each in advantages], dim=2)


class PixelControl(Objective[PixelControlConfig]):
    """The mean squared error of the cells' action values, in units in which returns are about 1.

    `change` is the mean change of a pixel, in [0, 1].

    Attributes:
        changes: the statistics of these changes.
    """

    sequence_length = 2

    def __init__(
        self, policy: Policy, config: PixelControlConfig, target_names: tuple[str, ...]
    ) -> None:
        super().__init__(policy, config, target_names)
        require_images(policy, "pixel_control")
        self.sizes = choice_sizes(policy.action_space)
        if not self.sizes:
            raise AgentError(
                "the objective pixel_control needs actions that are choices, but they are "
                "continuous; remove the objective"
            )
        self.thumbnails = Thumbnails(policy, config.cell_size)
        features = policy.perception.num_features
        self.heads = nn.ModuleDict(
            {
                name: DuelingHead(features, self.sizes, (height, width))
                for name, (_, height, width) in self.thumbnails.shapes.items()
            }
        )
        self.changes = RunningMeanStd(1)
        self.to(policy.device)

    @torch.no_grad()
    def observe(self, policy: Policy, rollout: Rollout) -> None:
        """See `Objective.observe`."""
        pairs, same = sample_pairs(rollout)
        changes = [part[0].mean((2, 3)) for part in self.thumbnails.changes(pairs).values()]
        self.changes.update((torch.stack(changes).mean(0) * same).reshape(-1, 1))

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        with torch.no_grad():
            rewards = self.thumbnails.changes(batch.obs)
            # A return of equal rewards is 1 / (1 - gamma) times one of them.
            usual = self.changes.mean.clamp(min=_LEAST_CHANGE).float()
            scale = (1.0 - self.config.gamma) / usual
        actions = encoded_actions(policy.action_space, batch.actions)  # (t, n, A)
        num_steps, mask = len(actions), same_episode(batch.episode_starts, 1)
        losses, changes = [], []
        for name, head in self.heads.items():
            value, advantages = head(output.features)
            chosen = value + torch.einsum("tna,tnahw->tnhw", actions, advantages)
            best = value + sum(each.amax(2) for each in advantages.split(self.sizes, dim=2))
            targets = n_step_targets(
                scale * rewards[name],
                best.detach(),
                mask,
                gamma=self.config.gamma,
                num_steps=self.config.num_steps,
            )
            errors = (chosen[:-1] - targets).square().mean((2, 3))
            losses.append(mean_where(errors, mask, num_steps))
            changes.append(mean_where(rewards[name].mean((2, 3)), mask, num_steps))
        return torch.stack(losses).mean(), {"change": torch.stack(changes).mean()}


def n_step_targets(
    rewards: Tensor, best: Tensor, mask: Tensor, *, gamma: float, num_steps: int
) -> Tensor:
    """Return the targets of n-step Q-learning (section 3.1 of the paper).

    A return consists of at most `num_steps` rewards, of those within the episode and the sequence,
    and of the best action value of the step that it ends at.

    Args:
        rewards: (t - 1, n, ...) float32, of the transition from each step to the next one.
        best: (t, n, ...) float32, the value of the best action in each step.
        mask: (t - 1, n) bool, whether the next step is of the same episode.
        gamma: discount of an env step.
        num_steps: the largest number of rewards.

    Returns:
        (t - 1, n, ...) float32; where `mask` is false, `best`.
    """
    inside = mask.view(*mask.shape, *(1,) * (rewards.dim() - 2))
    returns = best
    for _ in range(min(num_steps, len(rewards))):  # Each time, returns get one reward longer.
        longer = torch.where(inside, rewards + gamma * returns[1:], best[:-1])
        returns = torch.cat((longer, best[-1:]))
    return returns[:-1]
