"""Where in an image a policy looks: maps of how much each pixel matters for an output.

Each method returns what is added up over the planes of a pixel. Positive numbers are for the
output: without the pixel it would be lower. Gradients and their smoothed version have no sign.

Axes: B states, P planes, H, W an image, K places of a patch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from agents.extras import import_extra
from evaluation.explain.pixels import PixelPolicy, States, blurred
from perception.encoders import VisionTransformer

Score = Callable[[States], Tensor]
"""Returns (B,) numbers to explain, one for each state."""
Method = Callable[[Score, States], Tensor]
"""Returns (B, H, W) float32, how much each pixel matters."""

_STEPS = 32  # Of the integral: twice as many change maps by less than a percent.
_SAMPLES, _NOISE = 8, 0.1  # Of smoothed gradients, and their deviation in ranges of the image.
_PATCHES = 8  # A patch is this fraction of the image's height.
_AT_ONCE = 256  # Images in one pass through a network.


def gradients(score: Score, states: States) -> Tensor:
    """Return the gradient of the score, (B, P, H, W)."""
    with torch.enable_grad():
        images = states.images.detach().requires_grad_()
        (found,) = torch.autograd.grad(score(states.with_images(images)).sum(), images)
    return found


def gradient(score: Score, states: States) -> Tensor:
    """Return the sizes of the gradients (Simonyan et al. 2014)."""
    return gradients(score, states).abs().sum(1)


def gradient_x_input(score: Score, states: States) -> Tensor:
    """Return gradient times what a blur takes away (Shrikumar et al. 2017)."""
    difference = states.images - blurred(states.images)
    return (gradients(score, states) * difference).sum(1)


def smoothed_gradient(score: Score, states: States) -> Tensor:
    """Return the size of the mean gradient of noisy images (Smilkov et al. 2017)."""
    generator = torch.Generator().manual_seed(0)
    images = states.images
    deviation = _NOISE * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), True))
    total = torch.zeros_like(images)
    for _ in range(_SAMPLES):
        noise = torch.randn(images.shape, generator=generator) * deviation
        total += gradients(score, states.with_images(images + noise))
    return (total / _SAMPLES).abs().sum(1)


def integrated_gradients(score: Score, states: States) -> Tensor:
    """Return integrated gradients (Sundararajan et al. 2017), from the blurred image, by Captum.

    They are complete: their sum is the difference between the scores of both images.

    Raises:
        MissingExtraError: If Captum is not installed.
    """
    captum = import_extra("captum.attr", "explain")

    def forward(images: Tensor, which: Tensor) -> Tensor:
        return score(states[which].with_images(images))

    with torch.enable_grad():
        found: Tensor = captum.IntegratedGradients(forward, multiply_by_inputs=True).attribute(
            states.images,
            baselines=blurred(states.images),
            additional_forward_args=(torch.arange(len(states)),),
            n_steps=_STEPS,
        )
    return found.detach().sum(1).to(states.images.dtype)


@torch.no_grad()
def occlusion(score: Score, states: States) -> Tensor:
    """Return by how much the score falls where a patch is blurred (Zeiler and Fergus 2014).

    The number of a pixel is the mean over the patches that cover it.
    """
    height, width = states.images.shape[2:]
    patches = patches_of(height, width).to(states.images.dtype)
    blurry, clear = blurred(states.images), score(states)
    maps = torch.zeros(len(states), height, width)
    for b in range(len(states)):
        falls = []
        for masks in patches.split(_AT_ONCE):
            covered = torch.where(masks[:, None] > 0, blurry[b], states.images[b])
            repeated = states[b : b + 1].repeated(len(masks))
            falls.append(clear[b] - score(repeated.with_images(covered)))
        maps[b] = torch.einsum("k,khw->hw", torch.cat(falls), patches)
    return maps / patches.sum(0)


def patches_of(height: int, width: int) -> Tensor:
    """Return the squares that occlusion covers in turn, (K, H, W) float32 of 0 and 1.

    They are an eighth of the height wide, and each overlaps the next by half.
    """
    size = max(1, round(height / _PATCHES))
    stride = max(1, size // 2)
    rows, columns = (
        [*range(0, max(1, side - size), stride), max(0, side - size)] for side in (height, width)
    )
    patches = torch.zeros(len(rows) * len(columns), height, width)
    for k, (row, column) in enumerate((r, c) for r in rows for c in columns):
        patches[k, row : row + size, column : column + size] = 1.0
    return patches


METHODS: dict[str, Method] = {
    "gradient": gradient,
    "smoothed_gradient": smoothed_gradient,
    "gradient_x_input": gradient_x_input,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}
"""Methods by name; `attention` comes on top where an encoder has attention."""
ATTENTION = "attention"
UNSIGNED = ("gradient", "smoothed_gradient", ATTENTION)
"""Methods whose maps have no sign."""


def methods_of(policy: PixelPolicy) -> dict[str, Method]:
    """Return the methods that apply to a policy, by name."""
    encoder = policy.encoder
    if not isinstance(encoder, VisionTransformer):
        return dict(METHODS)

    def attention(score: Score, states: States) -> Tensor:
        """Return how much the queries attend to each place, whatever the score is."""
        maps = encoder.attention_maps(states.images).mean(1, keepdim=True)
        size = states.images.shape[2:]
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)[:, 0]

    return {**METHODS, ATTENTION: attention}


def attributed(
    policy: PixelPolicy, states: States, method: Method, target: str, at_once: int = 8
) -> Tensor:
    """Return the maps of a method for a target, (B, H, W) float32.

    Args:
        policy: the policy.
        states: the states.
        method: the method.
        target: one of `pixels.TARGETS`.
        at_once: states in one pass.
    """
    parts = states.chunks(at_once)
    return torch.cat([method(lambda s: policy.score(s, target), part) for part in parts])
