"""Copies between the CPU, where environments are, and the device of a policy.

On a GPU each copy costs some microseconds and may wait for all work before it, so that several
arrays go up as one, from memory that is pinned, without waiting. On a CPU nothing is copied.

Axes: n environments of one group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT = 16  # Bytes; a view of another dtype must begin at a multiple of its size.


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device, without waiting for the copy."""
    if device.type == "cpu":
        return tensor
    return pinned(tensor).to(device, non_blocking=True)


def pinned(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor in memory that a GPU can read by itself."""
    return torch.empty_like(tensor, pin_memory=torch.cuda.is_available()).copy_(tensor)


class Staging:
    """What a group of environments sends to the device in an env step, in one copy.

    Args:
        arrays: examples of what is sent, by name, each with first axis n.
        device: where to.
    """

    def __init__(self, arrays: Mapping[str, NDArray[np.generic]], device: torch.device) -> None:
        self._device = device
        if device.type == "cpu":
            return
        begins, size = {}, 0
        for name, array in arrays.items():
            begins[name] = size
            size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        self._here = pinned(torch.zeros(size, dtype=torch.uint8))
        self._there = torch.zeros(size, dtype=torch.uint8, device=device)
        self._places: dict[str, Tensor] = {}
        self._sent: dict[str, Tensor] = {}
        for name, array in arrays.items():
            like = torch.from_numpy(array)
            part = slice(begins[name], begins[name] + array.nbytes)
            self._places[name] = self._here[part].view(like.dtype).view(like.shape)
            self._sent[name] = self._there[part].view(like.dtype).view(like.shape)

    def send(self, arrays: Mapping[str, NDArray[np.generic]]) -> Mapping[str, Tensor]:
        """Return arrays as tensors on the device; they hold until the next call.

        What was sent before must have arrived, for its memory is written to.
        """
        if self._device.type == "cpu":
            return {name: torch.from_numpy(array) for name, array in arrays.items()}
        for name, place in self._places.items():
            place.copy_(torch.from_numpy(arrays[name]))
        self._there.copy_(self._here, non_blocking=True)
        return self._sent


def stream_of(device: torch.device) -> torch.cuda.Stream | None:
    """Return the stream that this thread's work on a device is in; None on a CPU."""
    return torch.cuda.current_stream(device) if device.type == "cuda" else None


def use_stream(
    stream: torch.cuda.Stream | None,
) -> contextlib.AbstractContextManager[torch.cuda.StreamContext | None]:
    """Put this thread's work into a stream; None changes nothing."""
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)
