"""Copies between the CPU, where environments usually are, and the device of a policy.

Each copy to a GPU takes some microseconds and may wait for all work before it. Several arrays are
therefore copied as one, from pinned memory, without waiting. On a CPU, nothing is copied.

Axes: n environments of one group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any] | Tensor
"""An array on the CPU, or a tensor on any device."""

_ALIGNMENT = 16  # Bytes; a view of another dtype must begin at a multiple of its size.


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; copies from the CPU to a GPU are not waited for."""
    if tensor.device.type == device.type or device.type == "cpu":
        return tensor.to(device)
    return pinned(tensor).to(device, non_blocking=True)


def pinned(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor in pinned memory, which GPUs read directly, if there is a GPU."""
    return torch.empty_like(tensor, pin_memory=torch.cuda.is_available()).copy_(tensor)


class Staging:
    """Copies the arrays that a group of environments returned for an env step, as one.

    Args:
        arrays: examples of the arrays, by name, each with first axis n.
        device: the device to which they are copied.
    """

    def __init__(self, arrays: Mapping[str, Array], device: torch.device) -> None:
        self._device = device
        if device.type == "cpu":
            return
        examples = {name: torch.as_tensor(array) for name, array in arrays.items()}
        # Tensors that are on a GPU already are passed on.
        copied = {name: like for name, like in examples.items() if like.device.type == "cpu"}
        begins, size = {}, 0
        for name, like in copied.items():
            begins[name] = size
            size += -(-like.nbytes // _ALIGNMENT) * _ALIGNMENT
        self._here = pinned(torch.zeros(size, dtype=torch.uint8))
        self._there = torch.zeros(size, dtype=torch.uint8, device=device)
        self._places: dict[str, Tensor] = {}
        self._sent: dict[str, Tensor] = {}
        for name, like in copied.items():
            part = slice(begins[name], begins[name] + like.nbytes)
            self._places[name] = self._here[part].view(like.dtype).view(like.shape)
            self._sent[name] = self._there[part].view(like.dtype).view(like.shape)

    def send(self, arrays: Mapping[str, Array]) -> Mapping[str, Tensor]:
        """Return arrays as tensors on the device.

        The results are valid until the next call. Before it, the copy must have finished, because
        the same memory is written to again.

        Args:
            arrays: with the names, shapes, dtypes and devices of the examples.
        """
        if self._device.type == "cpu":
            return {name: torch.as_tensor(array).to("cpu") for name, array in arrays.items()}
        for name, place in self._places.items():
            place.copy_(torch.as_tensor(arrays[name]))
        self._there.copy_(self._here, non_blocking=True)
        return {
            name: self._sent[name] if name in self._sent else torch.as_tensor(array)
            for name, array in arrays.items()
        }


def stream_of(device: torch.device) -> torch.cuda.Stream | None:
    """Return the stream in which the calling thread works on a device; None on a CPU."""
    return torch.cuda.current_stream(device) if device.type == "cuda" else None


def use_stream(
    stream: torch.cuda.Stream | None,
) -> contextlib.AbstractContextManager[torch.cuda.StreamContext | None]:
    """Return a context in which the calling thread works in a stream; None changes nothing."""
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)
