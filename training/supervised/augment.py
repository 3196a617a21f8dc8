"""Changing images at random, as other images could look.

Axes: B images, H, W, C an image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LARGEST_SHIFT = 0.1  # Of the side of an image; 2.8 pixels of 28.
_LARGEST_TURN = math.radians(12)
_LARGEST_SCALE = 0.12
_LARGEST_SHEAR = 0.15


def randomly_warped(images: Tensor) -> Tensor:
    """Return images, each moved, turned, scaled and sheared a little, at random.

    Args:
        images: (B, H, W, C) uint8 brightnesses; what comes in from beyond the border is black.
    """
    count = len(images)
    turn, scale_x, scale_y, shear, x, y = (torch.rand(6, count) * 2 - 1).to(images.device)
    cos, sin = (turn * _LARGEST_TURN).cos(), (turn * _LARGEST_TURN).sin()
    stretched = torch.eye(2, device=images.device).repeat(count, 1, 1)
    stretched[:, 0, 0] += scale_x * _LARGEST_SCALE
    stretched[:, 1, 1] += scale_y * _LARGEST_SCALE
    stretched[:, 0, 1] += shear * _LARGEST_SHEAR
    turned = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)
    # Coordinates of the whole image are -1 to 1, so that a shift by 2 would be one side.
    shift = torch.stack([x, y], -1) * 2 * _LARGEST_SHIFT
    matrices = torch.cat([turned @ stretched, shift[..., None]], -1)
    planes = images.movedim(-1, 1).float()
    grid = F.affine_grid(matrices, list(planes.shape), align_corners=False)
    warped = F.grid_sample(planes, grid, align_corners=False)
    return warped.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous()
