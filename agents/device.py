"""Settings for this machine: the device of a policy, its precision, threads and memory.

Except for rounding, none of them changes what is learned. A policy has one device; several devices
have a process each, see `agents.distributed`.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import torch

from agents.errors import AgentError

# Options of glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST_INT = 2**31 - 1


def choose_device(device: str) -> torch.device:
    """Return the device with a given name.

    Args:
        device: `cpu`, `cuda`, or `auto`: a GPU if PyTorch finds one, else the CPU.

    Raises:
        AgentError: If it is `cuda` and PyTorch finds no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise AgentError("--device cuda: PyTorch finds no GPU here; use --device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of products in image encoders and memory, see `Perception`.

    Args:
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 if the device has instructions for
            its products, else float32.
        device: the device of the policy.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        abilities = torch.cpu.get_capabilities()
        fast = bool(abilities.get("amx_bf16") or abilities.get("avx512_bf16"))
    return torch.bfloat16 if fast else torch.float32


def precision_name(precision: torch.dtype) -> str:
    """Return the name of a precision, as `choose_precision` accepts it."""
    return str(precision).removeprefix("torch.")


def keep_memory() -> None:
    """Configure the C library to keep freed memory for the next large array.

    By default, the library returns large arrays to the operating system and requests them again. In
    each update, hundreds of megabytes are then mapped page by page, which takes longer than the
    arithmetic. Together with the environment variable THP_MEM_ALLOC_ENABLE=1, with which PyTorch
    requests large pages, this halves the time of an update on a CPU. It needs glibc; with other C
    libraries, nothing happens.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)


@contextlib.contextmanager
def use_threads(number: int) -> Iterator[None]:
    """Return a context in which PyTorch uses a number of threads for work of the calling thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def single_thread() -> contextlib.AbstractContextManager[None]:
    """Return a context in which PyTorch uses one thread for work of the calling thread.

    Threads that share an operation wait for each other at its end. While environments need the
    cores too, one of the threads is always late, and for small operations the waiting takes longer
    than sharing the work saves.
    """
    return use_threads(1)
