"""Adversarial pixels: changes within a small distance that raise a loss as much as they can.

The distance is the largest change of a pixel (l-infinity), as pixels are given, in [0, 1]; changed
pixels stay in [0, 1]. Every random number is drawn on the CPU by a generator that is an argument.

Axes: ... leading axes (N environments, or T and N), H, W screen, P planes of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Pixels = dict[str, Tensor]
"""The images of an observation by name, each (..., H, W, P) floating point in [0, 1]."""
Loss = Callable[[Pixels], Tensor]
"""A loss of each image, (...) floating point, that an attack raises."""

_OVERSHOOT = 2.5  # PGD can reach any corner from any start, and turn back (Madry et al. 2018).
_SINGLE_STEP = 1.25  # With a random start, FGSM overshoots by this much (Wong et al. 2020).


def step_size(epsilon: float, steps: int) -> float:
    """Return the size of the steps of `pgd` from a random start."""
    return epsilon * min(_SINGLE_STEP, _OVERSHOOT / steps)


def within(pixels: Mapping[str, Tensor], clean: Mapping[str, Tensor], epsilon: float) -> Pixels:
    """Return pixels moved to the nearest ones that are allowed: within epsilon, and in [0, 1]."""
    return {
        name: torch.minimum(torch.maximum(pixels[name], image - epsilon), image + epsilon).clamp(
            0.0, 1.0
        )
        for name, image in clean.items()
    }


def uniform_noise(
    clean: Mapping[str, Tensor], epsilon: float, generator: torch.Generator
) -> Pixels:
    """Return pixels with noise that is uniform between -epsilon and epsilon."""
    noisy = {
        name: image + epsilon * (2.0 * _draw(image, generator) - 1.0)
        for name, image in clean.items()
    }
    return within(noisy, clean, epsilon)


def sign_noise(clean: Mapping[str, Tensor], epsilon: float, generator: torch.Generator) -> Pixels:
    """Return pixels with noise that is -epsilon or epsilon."""
    noisy = {
        name: image + epsilon * (_draw(image, generator) - 0.5).sign()
        for name, image in clean.items()
    }
    return within(noisy, clean, epsilon)


def fgsm(loss: Loss, clean: Mapping[str, Tensor], epsilon: float) -> Pixels:
    """Return pixels after one step of the fast gradient sign method (Goodfellow et al. 2015)."""
    return pgd(loss, clean, epsilon, steps=1, size=epsilon, start=clean)


def pgd(
    loss: Loss,
    clean: Mapping[str, Tensor],
    epsilon: float,
    *,
    steps: int,
    size: float,
    start: Mapping[str, Tensor],
) -> Pixels:
    """Return pixels after steps of projected gradient ascent (Madry et al. 2018, equation 1).

    Args:
        loss: is raised, for each image separately.
        clean: the pixels.
        epsilon: largest change of a pixel.
        steps: number of steps, each in the direction of the signs of the gradient.
        size: size of a step.
        start: pixels to start from, such as `uniform_noise` returns them.
    """
    pixels = dict(start)
    for _ in range(steps):
        gradients = _gradients(loss, pixels)
        moved = {name: image + size * gradients[name].sign() for name, image in pixels.items()}
        pixels = within(moved, clean, epsilon)
    return pixels


def random_search(
    loss: Loss,
    clean: Mapping[str, Tensor],
    epsilon: float,
    *,
    queries: int,
    generator: torch.Generator,
) -> Pixels:
    """Return pixels that random search finds, without gradients (Andriushchenko et al. 2020).

    It is the Square attack: from vertical stripes of random colours, one random square at a time
    gets a random colour, and keeps it where the loss rises. Squares become smaller with time.

    Args:
        loss: is raised, for each image separately.
        clean: the pixels.
        epsilon: largest change of a pixel.
        queries: how often the loss is computed.
        generator: draws all random numbers.
    """
    stripes = {
        n: (_draw(image[..., :1, :, :], generator) - 0.5).sign() for n, image in clean.items()
    }
    best = within({n: image + epsilon * stripes[n] for n, image in clean.items()}, clean, epsilon)
    with torch.no_grad():
        highest = loss(best)
        for query in range(1, queries):
            share = 0.5 * (1.0 - query / queries) ** 2  # Of the screen, at most a half.
            tried = {
                name: torch.where(
                    _squares(image, share, generator),
                    image + epsilon * (_draw(image[..., :1, :1, :], generator) - 0.5).sign(),
                    best[name],
                )
                for name, image in clean.items()
            }
            tried = within(tried, clean, epsilon)
            losses = loss(tried)
            best = where(losses > highest, tried, best)
            highest = torch.maximum(highest, losses)
    return best


def where(mask: Tensor, pixels: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Pixels:
    """Return some pixels where a mask, (...) bool, is true, and others elsewhere."""
    mask = mask[..., None, None, None]
    return {name: torch.where(mask, image, others[name]) for name, image in pixels.items()}


def _gradients(loss: Loss, pixels: Mapping[str, Tensor]) -> Pixels:
    leaves = {name: image.detach().requires_grad_() for name, image in pixels.items()}
    with torch.enable_grad():
        total = loss(leaves).sum()
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))


def _draw(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return uniform random numbers in [0, 1), with the shape and on the device of an image."""
    return torch.rand(image.shape, generator=generator).to(image.device)


def _squares(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return a random square of each image as a mask, (..., H, W, 1) bool.

    Args:
        image: (..., H, W, P).
        share: of the screen's area.
        generator: draws the places.
    """
    height, width = image.shape[-3:-1]
    side = max(1, min(round((share * height * width) ** 0.5), height, width))
    inside = []
    for length in (height, width):
        first = torch.rand(image.shape[:-3], generator=generator) * (length - side + 1)
        distance = torch.arange(length) - first.long()[..., None]
        inside.append((distance >= 0) & (distance < side))
    rows, columns = inside
    mask: Tensor = rows[..., :, None, None] & columns[..., None, :, None]
    return mask.to(image.device)
