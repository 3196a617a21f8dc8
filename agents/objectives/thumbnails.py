"""Images of low resolution, which objectives predict: they are decoded, and cells are averaged.

Of stacked frames, that is the newest one: the others were there before the action. Frames are known
to be stacked if their channels have names, as in Doom.

Axes: ... any leading axes, H, W, C an image, P planes after decoding, h, w cells.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.errors import AgentError
from agents.policy import Policy
from perception import ImageSpec
from perception.decode import Decoder


def require_images(policy: Policy, objective: str) -> None:
    """Check that observations contain an image.

    Args:
        policy: the policy.
        objective: the name of the objective that needs it.

    Raises:
        AgentError: If there is none.
    """
    if not policy.perception.image_names:
        raise AgentError(
            f"the objective {objective} needs images, but the observations contain none; remove "
            "the objective, or choose an environment with images"
        )


class Thumbnails(nn.Module):
    """Decodes the images of observations, and averages cells of pixels.

    Args:
        policy: the policy that observes the images.
        cell_size: side of a cell, in pixels; at most the shorter side of an image. Pixels at the
            right and at the bottom that fill no cell are left out.

    Attributes:
        cells: side of a cell by part of an observation, of those that are images.
        shapes: (P, h, w) by part of an observation, of those that are images.
        size: how many numbers these are together.
    """

    def __init__(self, policy: Policy, cell_size: int) -> None:
        super().__init__()
        self.decoders = nn.ModuleDict()
        self._channels: dict[str, int] = {}  # Of one frame.
        self.cells: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, int, int]] = {}
        for name, spec in policy.specs.items():
            if isinstance(spec, ImageSpec):
                frame = spec.newest_frame
                height, width, self._channels[name] = frame.shape
                self.cells[name] = cell = min(cell_size, height, width)
                self.shapes[name] = (frame.num_planes, height // cell, width // cell)
                self.decoders[name] = Decoder(frame)
        self.size = sum(planes * h * w for planes, h, w in self.shapes.values())

    def forward(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the thumbnails of the images, by name, each (..., P, h, w) float32 in [0, 1].

        Args:
            obs: parts by name, each (..., H, W, C) uint8 if it is an image; others are ignored.
        """
        decoded = self._decoded(obs)
        return {name: self._averaged(name, part) for name, part in decoded.items()}

    def changes(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean absolute change of each cell's pixels from each step to the next one.

        Args:
            obs: parts by name, each (t, n, H, W, C) uint8 if it is an image; others are ignored.

        Returns:
            By name, each (t - 1, n, h, w) float32 in [0, 1].
        """
        decoded = self._decoded(obs)
        changes = {name: (part[1:] - part[:-1]).abs() for name, part in decoded.items()}
        return {name: self._averaged(name, part).mean(-3) for name, part in changes.items()}

    def flat(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return all thumbnails, (..., size) float32; arguments as for `forward`."""
        return torch.cat([part.flatten(-3) for part in self(obs).values()], dim=-1)

    def _decoded(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the newest frames by name, each (..., P, H, W) float32 in [0, 1]."""
        newest = {name: obs[name][..., -channels:] for name, channels in self._channels.items()}
        return {
            name: self.decoders[name](frames.flatten(0, -4)).float().unflatten(0, frames.shape[:-3])
            for name, frames in newest.items()
        }

    def _averaged(self, name: str, images: Tensor) -> Tensor:
        """Return the cells' means, (..., P, h, w), of (..., P, H, W) images of a part."""
        averaged: Tensor = F.avg_pool2d(images.flatten(0, -4), self.cells[name])
        unflattened: Tensor = averaged.unflatten(0, images.shape[:-3])
        return unflattened
