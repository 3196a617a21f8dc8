"""Gradients of a minibatch, whose parts are computed in several threads, and their layout."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch
from torch import Tensor, nn

from agents.cuda_graph import captured
from agents.device import single_thread
from agents.errors import AgentError
from agents.rollout import Minibatch

Metrics = dict[str, Tensor]
"""Scalars by name."""

Gradients = list[Tensor | None]
"""A gradient for each parameter; None for a parameter that the loss does not depend on."""

Loss = Callable[[Minibatch], tuple[Tensor, Metrics]]
"""Returns the mean loss of a minibatch or of a part of one, a scalar, and means over it to log."""

GradientMode = Literal["auto", "eager", "cuda-graph"]
"""How gradients are computed: operation by operation, or as a captured CUDA graph, which a GPU
replays without waiting for Python. auto: `cuda-graph` where it was measured to be faster."""


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
    loss: Loss,
    batch: Minibatch,
    parameters: Sequence[nn.Parameter],
    num_parts: int = 1,
) -> tuple[Gradients, Metrics]:
    """Return the gradients and metrics of the loss of a minibatch.

    On a CPU, the minibatch is split into parts, each for a separate thread, and their gradients are
    added up. The threads then wait for each other once a minibatch instead of once an operation.

    Args:
        loss: the loss of a part.
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


class GraphedGradients:
    """`gradients_of` as CUDA graphs, each captured with the first minibatch of its shape.

    The loss must depend on nothing else that changes between minibatches, except for tensors that
    are changed in place.

    Args:
        loss: the loss of a minibatch.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._graphs: dict[Hashable, _Graph] = {}

    def __call__(
        self, batch: Minibatch, parameters: Sequence[nn.Parameter]
    ) -> tuple[Gradients, Metrics]:
        """Return the gradients, which the next call overwrites, and the metrics of a minibatch.

        Args:
            batch: the minibatch, on a GPU.
            parameters: what is differentiated by.

        Raises:
            AgentError: If the loss cannot be captured, because it reads a tensor on the CPU or
                copies one to the GPU.
        """
        shapes = tuple((name, part.shape) for name, part in batch.tensors().items())
        key = shapes, tuple(map(id, parameters))
        if key not in self._graphs:
            self._graphs[key] = _Graph(self._loss, batch, parameters)
        return self._graphs[key].replay(batch)


class _Graph:
    """A CUDA graph that computes the gradients of minibatches of one shape."""

    def __init__(self, loss: Loss, batch: Minibatch, parameters: Sequence[nn.Parameter]) -> None:
        self._batch = batch.clone()

        def compute() -> tuple[Gradients, Metrics]:
            gradients, metrics = gradients_of(loss, self._batch, parameters)
            pairs = zip(parameters, gradients, strict=True)
            return [None if g is None else laid_out_as(p, g) for p, g in pairs], metrics

        try:
            self._graph, (self._gradients, self._metrics) = captured(compute)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise AgentError(
                "the loss cannot be captured as a CUDA graph "
                f"({str(error).splitlines()[0]}); use --gradients eager"
            ) from error

    def replay(self, batch: Minibatch) -> tuple[Gradients, Metrics]:
        """Return the gradients and metrics of a minibatch."""
        theirs = batch.tensors()
        for name, part in self._batch.tensors().items():
            part.copy_(theirs[name])
        self._graph.replay()
        return list(self._gradients), {n: each.clone() for n, each in self._metrics.items()}
