"""Contrastive learning of image features, of one image or in time, without a momentum encoder.

Each image is shifted twice at random. The loss is low if the features of these two views are more
similar to each other than to those of all other images of the minibatch (CURL, Laskin et al. 2020).
With a `delay`, the second view is that of the image so many env steps later in the same episode
(ATC, Stooke et al. 2021), and features contain what lasts and can be foreseen. The loss depends on
all pairs of images, so that a minibatch must not be split.

Axes: t and n steps and environments of a minibatch, B pairs of images, H, W, C an image, Z width of
the projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.objectives.objective import Objective, ObjectiveConfig, check_positive
from agents.objectives.sequences import same_episode
from agents.objectives.thumbnails import require_images
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch

_SHORTEST = 1e-3  # Shorter projections are not scaled to length 1, so that gradients are bounded.


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(ObjectiveConfig):
    """Contrastive learning: features that tell images apart; with a delay, what lasts."""

    projection_size: int = 128
    """Width of the vectors that are compared."""
    temperature: float = 0.1
    """Divisor of cosine similarities: the lower, the more the most similar other images count."""
    max_shift: int = 4
    """Largest random shift of an image in each direction, in pixels."""
    delay: int = 0
    """Env steps between the two images that are compared, within an episode; 3 in ATC. 0: they are
    two views of one image."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_positive(self, "projection_size", "temperature", "max_shift")
        if self.delay < 0:
            raise ValueError(f"delay must not be negative, got {self.delay}")


class Contrastive(Objective[ContrastiveConfig]):
    """The InfoNCE loss of two randomly shifted views of the images of a minibatch.

    With a delay, the projection of the earlier image is changed by a small network, which predicts
    that of the later one. Images whose episode ends before are compared with, but have no pair.
    """

    splittable: ClassVar[bool] = False
    uses_output: ClassVar[bool] = False

    def __init__(
        self, policy: Policy, config: ContrastiveConfig, target_names: tuple[str, ...]
    ) -> None:
        super().__init__(policy, config, target_names)
        require_images(policy, "contrastive")
        self.names = policy.perception.image_names
        self.sequence_length = config.delay + 1
        size = policy.perception.num_image_features
        self.head = nn.Linear(size, config.projection_size)
        # The bias stays random: with zero, the projection of a black image would be zero, and the
        # gradient of its direction infinite.
        nn.init.orthogonal_(self.head.weight)
        self.predictor = _Residual(config.projection_size) if config.delay else nn.Identity()
        self.to(policy.device)

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        delay, num_steps = self.config.delay, len(batch.episode_starts)
        earlier = {name: batch.obs[name][: num_steps - delay].flatten(0, 1) for name in self.names}
        later = {name: batch.obs[name][delay:].flatten(0, 1) for name in self.names}
        first = self.predictor(self._project(policy, earlier))
        second = self._project(policy, later)
        mask = same_episode(batch.episode_starts, delay).flatten() if delay else None
        loss, accuracy = info_nce(first, second, self.config.temperature, mask)
        return loss, {"accuracy": accuracy}

    def _project(self, policy: Policy, images: dict[str, Tensor]) -> Tensor:
        """Return the (B, Z) float32 projections of randomly shifted (B, H, W, C) uint8 images."""
        largest = self.config.max_shift
        views = {name: randomly_shifted(part, largest) for name, part in images.items()}
        projected: Tensor = self.head(policy.perception.encode(views))
        return projected


class _Residual(nn.Module):
    """Adds what a small network computes to (B, Z) vectors, as ATC does to those of the anchors.

    Args:
        size: Z.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))

    def forward(self, vectors: Tensor) -> Tensor:
        """Return (B, Z) vectors."""
        changed: Tensor = vectors + self.layers(vectors)
        return changed


def info_nce(
    first: Tensor, second: Tensor, temperature: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the InfoNCE loss (van den Oord et al. 2018, equation 4) with cosine similarities.

    Args:
        first: (B, Z) float32, the projection of a view of each image.
        second: (B, Z) float32, that of another view.
        temperature: divisor of the similarities.
        mask: (B,) bool, which of these are pairs; the others are only compared with. None: all.

    Returns:
        The mean loss of both directions, and the share of pairs, in [0, 1], for which the most
        similar projection in `second` is that of the pair; scalars, 0 if there are no pairs.
    """
    first, second = (F.normalize(each, dim=1, eps=_SHORTEST) for each in (first, second))
    similarities = first @ second.t() / temperature
    same = torch.arange(len(first), device=first.device)
    right = similarities.argmax(1) == same
    if mask is None:
        both_ways = F.cross_entropy(similarities, same) + F.cross_entropy(similarities.t(), same)
        return both_ways / 2, right.float().mean()
    each = [F.cross_entropy(s, same, reduction="none") for s in (similarities, similarities.t())]
    count = mask.sum().clamp(min=1)
    return ((each[0] + each[1]) * mask).sum() / count / 2, (right & mask).sum() / count


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
