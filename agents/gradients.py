"""Gradients of a minibatch, whose parts are computed in several threads, and their layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from agents.device import single_thread
from agents.rollout import Minibatch

Metrics = dict[str, Tensor]
"""Scalars by name."""

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


def gradients_of(
    loss: Callable[[Minibatch], tuple[Tensor, Metrics]],
    batch: Minibatch,
    parameters: Sequence[nn.Parameter],
    num_parts: int = 1,
) -> tuple[Gradients, Metrics]:
    """Return the gradients and metrics of the loss of a minibatch.

    On a CPU, the minibatch is split into parts, each for a separate thread, and their gradients are
    added up. The threads then wait for each other once a minibatch instead of once an operation.

    Args:
        loss: returns the mean loss of a part, a scalar, and metrics, means over it.
        batch: the minibatch.
        parameters: what is differentiated by.
        num_parts: the number of parts; fewer if there are fewer environments.
    """
    parts = batch.split(num_parts)

    def weighted(part: Minibatch) -> tuple[Gradients, Metrics]:
        weight = part.actions.shape[1] / batch.actions.shape[1]
        value, metrics = loss(part)
        gradients = torch.autograd.grad(value * weight, parameters, allow_unused=True)
        return list(gradients), {name: each.detach() * weight for name, each in metrics.items()}

    def alone(part: Minibatch) -> tuple[Gradients, Metrics]:
        with single_thread():
            return weighted(part)

    if len(parts) == 1:
        return weighted(batch)
    with ThreadPoolExecutor(len(parts)) as threads:
        first, *others = threads.map(alone, parts)
    gradients, metrics = first
    for more_gradients, more_metrics in others:
        add_to(gradients, more_gradients)
        metrics = {name: value + more_metrics[name] for name, value in metrics.items()}
    return gradients, metrics
