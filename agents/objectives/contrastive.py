"""Contrastive learning of image features (CURL, Laskin et al. 2020, without the momentum encoder).

Each image is shifted twice at random. The loss is low if the features of these two views are more
similar to each other than to those of all other images of the minibatch. It depends on all pairs of
images, so that a minibatch must not be split.

Axes: B images of a minibatch, H, W, C an image, Z width of the projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.errors import AgentError
from agents.objectives.objective import Objective, ObjectiveConfig
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch

_SHORTEST = 1e-3  # Shorter projections are not scaled to length 1, so that gradients are bounded.


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(ObjectiveConfig):
    """The configuration of contrastive learning."""

    projection_size: int = 128
    """Width of the vectors that are compared."""
    temperature: float = 0.1
    """Divisor of cosine similarities: the lower, the more the most similar other images count."""
    max_shift: int = 4
    """Largest random shift of an image in each direction, in pixels."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        for name in ("projection_size", "temperature", "max_shift"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)}")


class Contrastive(Objective[ContrastiveConfig]):
    """The InfoNCE loss of two randomly shifted views of the images of a minibatch."""

    splittable: ClassVar[bool] = False

    def __init__(
        self, policy: Policy, config: ContrastiveConfig, target_names: tuple[str, ...]
    ) -> None:
        super().__init__(policy, config, target_names)
        self.names = policy.perception.image_names
        if not self.names:
            raise AgentError(
                "the objective contrastive needs images, but the observations contain none; remove "
                "the objective, or choose an environment with images"
            )
        size = policy.perception.num_image_features
        self.head = nn.Linear(size, config.projection_size)
        # The bias stays random: with zero, the projection of a black image would be zero, and the
        # gradient of its direction infinite.
        nn.init.orthogonal_(self.head.weight)
        self.to(policy.device)

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        images = {name: batch.obs[name].flatten(0, 1) for name in self.names}
        first, second = (self._project(policy, images) for _ in range(2))
        loss, accuracy = info_nce(first, second, self.config.temperature)
        return loss, {"loss": loss, "accuracy": accuracy}

    def _project(self, policy: Policy, images: dict[str, Tensor]) -> Tensor:
        """Return the (B, Z) float32 projections of randomly shifted (B, H, W, C) uint8 images."""
        largest = self.config.max_shift
        views = {name: randomly_shifted(part, largest) for name, part in images.items()}
        projected: Tensor = self.head(policy.perception.encode(views))
        return projected


def info_nce(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Compute the InfoNCE loss (van den Oord et al. 2018, equation 4) with cosine similarities.

    Args:
        first: (B, Z) float32, the projection of a view of each image.
        second: (B, Z) float32, that of another view.
        temperature: divisor of the similarities.

    Returns:
        The mean loss of both directions, and the share of images, in [0, 1], for which the most
        similar projection in `second` is that of the same image; scalars.
    """
    first, second = (F.normalize(each, dim=1, eps=_SHORTEST) for each in (first, second))
    similarities = first @ second.t() / temperature
    same = torch.arange(len(first), device=first.device)
    both_ways = F.cross_entropy(similarities, same) + F.cross_entropy(similarities.t(), same)
    return both_ways / 2, (similarities.argmax(1) == same).float().mean()


def randomly_shifted(images: Tensor, largest: int) -> Tensor:
    """Return images, each shifted by a random offset; pixels at the border are repeated.

    Args:
        images: (B, H, W, C) of any dtype. Pixels are moved and never averaged, so palette indices
            are supported.
        largest: the largest shift in each direction, in pixels.
    """
    count, height, width = images.shape[:3]
    # Sampled on the CPU, so that a seed results in the same shifts on every device.
    offsets = torch.randint(-largest, largest + 1, (2, count, 1)).to(images.device)
    rows = (torch.arange(height, device=images.device) + offsets[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + offsets[1]).clamp(0, width - 1)
    each = torch.arange(count, device=images.device)[:, None, None]
    return images[each, rows[:, :, None], columns[:, None, :]]
