"""Reconstructing masked patches of images (SimMIM, Xie et al. 2022; He et al. 2022, "MAE").

Patches are drawn at random and blackened before an image is encoded. From the features of what
remains, the colours of the patches are predicted: features then say what belongs together. As in
SimMIM, the head is linear and only masked patches count; the encoder is the agent's own.

Axes: B images of a minibatch, H, W, C an image, h, w cells, D numbers of all thumbnails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.objectives.objective import Objective, ObjectiveConfig, check_positive
from agents.objectives.sequences import sample
from agents.objectives.thumbnails import Thumbnails, require_images
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch, Rollout
from perception.encoders import orthogonal
from perception.normalization import RunningMeanStd

_LEAST_VARIANCE = 1e-6  # Of numbers in [0, 1], where all images are equal.


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(ObjectiveConfig):
    """Reconstructing masked patches of images: features of what belongs together in them."""

    coef: float = 0.2
    """Weight of the loss, relative to the agent's own. 0: the objective is not computed."""
    share: float = 0.5
    """Share of the patches that are masked, between 0 and 1."""
    cell_size: int = 4
    """Side of the squares whose mean colours are predicted, in pixels."""
    patch_cells: int = 3
    """Side of a patch, in such squares."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_positive(self, "cell_size", "patch_cells")
        if not 0 < self.share < 1:
            raise ValueError(f"share must be between 0 and 1, got {self.share}")


class Masked(Objective[MaskedConfig]):
    """Predicts the masked cells of thumbnails; the loss is the squared error in units of variance.

    `mean_image` is the loss of predicting the mean image so far, about 1.

    Attributes:
        seen: the statistics of the numbers of thumbnails, which are in [0, 1].
    """

    splittable: ClassVar[bool] = False  # It draws random numbers.
    uses_output: ClassVar[bool] = False

    def __init__(self, policy: Policy, config: MaskedConfig, target_names: tuple[str, ...]) -> None:
        super().__init__(policy, config, target_names)
        require_images(policy, "masked")
        self.thumbnails = Thumbnails(policy, config.cell_size)
        size = policy.perception.num_image_features
        self.head = orthogonal(nn.Linear(size, self.thumbnails.size), 0.01)
        self.seen = RunningMeanStd(self.thumbnails.size)
        self.to(policy.device)

    @torch.no_grad()
    def observe(self, policy: Policy, rollout: Rollout) -> None:
        """See `Objective.observe`."""
        self.seen.update(self.thumbnails.flat(sample(rollout)).flatten(0, 1))

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        images = {name: batch.obs[name].flatten(0, 1) for name in self.thumbnails.shapes}
        masks, visible = {}, {}
        for name, frames in images.items():
            cells = self.thumbnails.shapes[name][1:]
            masks[name] = self._draw(len(frames), cells).to(frames.device)
            visible[name] = blackened(frames, masks[name], self.thumbnails.cells[name])
        with torch.no_grad():
            variance = self.seen.variance.mean().clamp(min=_LEAST_VARIANCE)
            colours = (self.thumbnails.flat(images) - self.seen.mean) / variance.sqrt()
        colours = colours.float()  # (B, D)
        predicted = self.head(policy.perception.encode(visible))
        # In the order of the numbers of thumbnails: a mask is the same for all planes of an image.
        shapes = self.thumbnails.shapes
        where = torch.cat(
            [mask[:, None].expand(-1, *shapes[n]).flatten(1) for n, mask in masks.items()], dim=-1
        )
        count = where.sum().clamp(min=1)
        loss = ((predicted - colours).square() * where).sum() / count
        return loss, {"mean_image": (colours.square() * where).sum() / count}

    def _draw(self, count: int, cells: tuple[int, int]) -> Tensor:
        """Return which cells are masked, (B, h, w) bool on the CPU, in whole patches.

        Args:
            count: B.
            cells: (h, w).
        """
        side = self.config.patch_cells
        rows, columns = (-(-length // side) for length in cells)
        # Drawn on the CPU, so that a seed results in the same masks on every device. The same
        # number of patches is masked in each image: those with the lowest draws.
        num_masked = max(1, round(self.config.share * rows * columns))
        order = torch.rand(count, rows * columns).argsort(1).argsort(1)
        patches = (order < num_masked).view(count, rows, columns)
        whole = patches.repeat_interleave(side, 1).repeat_interleave(side, 2)
        return whole[:, : cells[0], : cells[1]]


def blackened(frames: Tensor, mask: Tensor, side: int) -> Tensor:
    """Return images whose masked cells are 0: black, or the first colour of the palette.

    Args:
        frames: (B, H, W, C) uint8.
        mask: (B, h, w) bool.
        side: side of a cell, in pixels.
    """
    pixels = mask.repeat_interleave(side, 1).repeat_interleave(side, 2)
    height, width = (frames.shape[i] - pixels.shape[i] for i in (1, 2))  # Of what fills no cell.
    return frames.masked_fill(F.pad(pixels, (0, width, 0, height))[..., None], 0)
