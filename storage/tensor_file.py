"""Tensors with a description, as safetensors files with JSON and a checksum in their metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from storage.files import DamagedError, FileError, open_regular, write_atomically

FORMAT = 4
OLDEST_FORMAT = 3
"""Files of formats from here on are read; see `storage.upgrade`."""

_METADATA_KEY, _CHECKSUM_KEY = "doomgrad", "sha256"
_LONGEST_REASON = 300  # Characters; a file may contain any number of them.
# Bytes; a file that claims to have a larger header is not read. A checkpoint has about 400 for each
# environment.
_MAX_HEADER = 2**24
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
Kind = tuple[tuple[int, ...], str]
"""Shape and type of a tensor, as stated in the header of a file."""


def kind_of(tensor: Tensor) -> Kind:
    """Return the shape and type of a tensor."""
    return tuple(tensor.shape), _TYPES.get(tensor.dtype, str(tensor.dtype))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]
) -> None:
    """Write tensors with a description, atomically.

    Args:
        path: the file.
        tensors: the tensors by name, on any device.
        description: further data, as JSON.
    """
    plain = _plain(tensors)
    text = json.dumps({"format": FORMAT, **description})
    metadata = {_METADATA_KEY: text, _CHECKSUM_KEY: checksum(plain, text)}
    write_atomically(path, save(plain, metadata))


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors, on any device, as the content of a safetensors file."""
    return bytes(save(_plain(tensors)))


def from_bytes(content: bytes) -> dict[str, Tensor]:
    """Return the tensors, on the CPU, that were passed to `to_bytes`."""
    return dict(load(content))


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Copied, because a tensor with one element may count as contiguous and have other strides.
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def checksum(tensors: Mapping[str, Tensor], description: str) -> str:
    """Return the SHA-256 of a description and of every tensor with its name, shape and type."""
    digest = hashlib.sha256(description.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def expect_kinds(kinds: Mapping[str, Kind], expected: Mapping[str, Tensor]) -> None:
    """Check that tensors have exactly the names, shapes and types that they should have.

    Args:
        kinds: shape and type of each tensor.
        expected: tensors of the right shapes and types, by name.

    Raises:
        ValueError: If they differ.
    """
    if kinds.keys() != expected.keys():
        name = min(kinds.keys() ^ expected.keys())
        raise ValueError(f"{name} is {'missing' if name in expected else 'not described'}")
    for name, kind in kinds.items():
        right = kind_of(expected[name])
        if kind != right:
            raise ValueError(f"{name} is {kind}, described as {right}")


def one_line(error: Exception) -> str:
    """Return an error's message as one line; PyTorch puts what is wrong below a heading."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[-1].strip()[:_LONGEST_REASON]


class TensorFile:
    """A file that `write_tensors` wrote, if it is one: it may come from a stranger.

    Attributes:
        description: the description of its tensors.
        kinds: shape and type of each tensor, as stated in the header.

    Raises:
        DamagedError: If it is not a safetensors file that doomgrad wrote.
        FileError: If it is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        beginning = b""
        try:
            with open_regular(path) as file:
                beginning = file.read(8)
            if int.from_bytes(beginning, "little") > _MAX_HEADER:
                raise SafetensorError("its header is too large")
            # The sizes that a header claims are checked against the file's own.
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                self.kinds: dict[str, Kind] = {
                    name: (tuple(part.get_shape()), part.get_dtype())
                    for name, part in slices.items()
                }
            self._text, self._checksum = metadata[_METADATA_KEY], metadata.get(_CHECKSUM_KEY)
            self.description: dict[str, Any] = json.loads(self._text)
            found = self.description["format"]
        except FileError:
            raise
        except (SafetensorError, OSError) as error:
            reason = str(error).splitlines()[0]
            if beginning.startswith((b"PK", b"\x80")):
                reason = "it may hold pickled code, as SB3 and PyTorch write it, which is not run"
            raise DamagedError(f"{path} is damaged, or no safetensors file: {reason}") from error
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise DamagedError(
                f"{path} was not written by doomgrad: it lacks its description"
            ) from error
        if not (type(found) is int and OLDEST_FORMAT <= found <= FORMAT):
            raise DamagedError(
                f"{path} is of format {found!s:.20}; this program reads {OLDEST_FORMAT} to {FORMAT}"
            )

    def tensors(self) -> dict[str, Tensor]:
        """Read every tensor.

        Raises:
            DamagedError: If they are not what was written.
        """
        try:
            with safe_open(self._path, "pt") as file:
                # Copies, because the tensors of `safe_open` change with the file.
                tensors = {name: file.get_tensor(name).clone() for name in self.kinds}
        except (SafetensorError, OSError, RuntimeError, TypeError) as error:
            raise DamagedError(f"{self._path} is damaged: {one_line(error)}") from error
        if self._checksum != checksum(tensors, self._text):
            raise DamagedError(
                f"{self._path} is damaged: its content is not what its checksum says"
            )
        return tensors
