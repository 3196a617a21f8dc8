"""Gradients that were computed apart: adding them up, and giving them to an optimiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Gradients = list[Tensor | None]
"""A gradient for each parameter; None for a parameter that the loss does not depend on."""


def add_to(gradients: Gradients, more: Sequence[Tensor | None]) -> None:
    """Add gradients to others, in place."""
    for i, gradient in enumerate(more):
        if gradient is not None:
            total = gradients[i]
            gradients[i] = gradient if total is None else total.add_(gradient)


def laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient with the strides of its parameter, which `Tensor.backward` ensures too.

    `torch.autograd.grad` returns gradients with the strides of the last operation. Fused optimisers
    on a CPU iterate over the memory of parameter and gradient without comparing strides.

    Args:
        parameter: the parameter.
        gradient: its gradient, of the same shape and dtype.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, requires_grad=False).copy_(gradient)
