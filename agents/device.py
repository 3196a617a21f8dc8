"""What this machine offers a policy: where it lives, how precisely it computes, what memory costs.

Nothing here changes what is learned beyond rounding.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import torch

from agents.commandline import UsageError

# Options of glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST_INT = 2**31 - 1


def choose_device(device: str) -> torch.device:
    """Turn `auto` into what this machine has.

    Raises:
        UsageError: If a GPU is asked for where there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no GPU here; use --device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Turn `auto` into bfloat16 where the processor or GPU computes with it, float32 elsewhere.

    Args:
        precision: `auto`, `float32` or `bfloat16`.
        device: where the policy lives.
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
    """Name a precision as `choose_precision` takes it."""
    return str(precision).removeprefix("torch.")


def keep_memory() -> None:
    """Let the C library keep freed memory for the next large array.

    By default it gives large arrays back to the system and asks for them again: in each update
    hundreds of megabytes are handed over page by page, which takes longer than the arithmetic.
    Together with the environment variable THP_MEM_ALLOC_ENABLE=1, by which PyTorch asks for large
    pages, an update on a CPU takes half the time. Only glibc has this; elsewhere nothing happens.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)


@contextlib.contextmanager
def use_threads(number: int) -> Iterator[None]:
    """Let torch use so many threads, in the thread that asks for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def single_thread() -> contextlib.AbstractContextManager[None]:
    """Let torch use one thread, in the thread that asks for it.

    Threads that share every small operation wait for each other after each of them. Where the cores
    are needed elsewhere, by games above all, one of them is always late, and the waiting costs more
    than the sharing brings.
    """
    return use_threads(1)
