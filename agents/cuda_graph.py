"""CUDA graphs: work that a GPU repeats without waiting for Python.

Each run of a captured function reads the same memory and overwrites the same results, so that new
arguments must be copied to where the first ones were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

_WARM_UPS = 3  # Runs before a capture, in which libraries choose their algorithms.


def captured(function: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
    """Capture a function without arguments, after some runs of it.

    Args:
        function: computes tensors on the current GPU, and neither reads one on the CPU nor copies
            one to the GPU.

    Returns:
        The graph, and what the function returned; each replay overwrites its tensors.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may allocate memory meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = function()
    return graph, result
