"""A fake GPU: its tensors have shapes, dtypes and a device, but no numbers.

PyTorch's fake tensors can be on a GPU that does not exist, if a guard for this kind of device is
registered in C++. The code for a GPU then runs, operations on tensors of several devices raise as
on a GPU, and copies between devices can be counted. Backward passes do not work; tests run them on
the meta device instead.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses import fake_tensor
from torch.utils import cpp_extension
from torch.utils._python_dispatch import TorchDispatchMode

GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>);
"""
CUDA = torch.device("cuda:0")
COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)

needs_compiler = pytest.mark.skipif(
    torch.cuda.is_available() or not COMPILER,
    reason="needs a C++ compiler, and no real GPU",
)
_registered: list[Path] = []


def register_guard(folder: Path) -> None:
    """Compile and register the guard, once in a process; this takes a few seconds.

    Args:
        folder: where it is compiled.
    """
    if _registered:
        return
    source, library = folder / "guard.cpp", folder / "guard.so"
    source.write_text(GUARD)
    # Not by `cpp_extension.load`, which takes several times as long.
    options = ["-shared", "-fPIC", "-std=c++20", str(source), "-o", str(library)]
    options += [f"-I{path}" for path in cpp_extension.include_paths()]
    options += [f"-L{Path(torch.__file__).parent / 'lib'}", "-lc10"]
    subprocess.run([COMPILER, *options], check=True)
    torch.ops.load_library(library)
    _registered.append(library)


def _contiguous_gradients(loss, parameters, *, allow_unused=False):
    return [torch.empty(p.shape, dtype=p.dtype, device=p.device) for p in parameters]


class Transfers(TorchDispatchMode):
    """Counts copies between devices: `up` to the GPU, `down` from it."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Count, and run the operation."""
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if func is torch.ops.aten.copy_.default else args[0]
            devices = source.device.type, result.device.type
            self.count.update({("cpu", "cuda"): ["up"], ("cuda", "cpu"): ["down"]}.get(devices, []))
        return result


@contextlib.contextmanager
def fake_gpu():
    """Make every new tensor a fake one; numbers that are read are zeros or ones.

    Yields:
        A `Transfers`; reading a tensor counts as `read`.
    """
    transfers, patch = Transfers(), pytest.MonkeyPatch()
    numpy = torch.Tensor.numpy

    def fake_numpy(tensor, **options):
        if not isinstance(tensor, fake_tensor.FakeTensor):
            return numpy(tensor, **options)
        assert tensor.device.type == "cpu", "NumPy reads only the CPU's memory"
        return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))

    def fake_tolist(tensor):
        transfers.count["read"] += tensor.device.type == "cuda"
        # Ones, because updates read whether all numbers are finite.
        return np.ones(tensor.shape, str(tensor.dtype).removeprefix("torch.")).tolist()

    patch.setattr(torch.Tensor, "numpy", fake_numpy)
    patch.setattr(fake_tensor.FakeTensor, "tolist", fake_tolist)
    # The backward pass needs streams of the GPU's library, which does not exist.
    patch.setattr(torch.autograd, "grad", _contiguous_gradients)
    # Otherwise small tensors have numbers, which are read from the GPU's library.
    patch.setattr(fake_tensor, "CONSTANT_NUMEL_LIMIT", -1)
    try:
        with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True), transfers:
            yield transfers
    finally:
        patch.undo()


def to_fake_gpu(module):
    """Move a module of real tensors to the GPU, strides included, within `fake_gpu`."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    moved = torch.empty_strided(
                        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA
                    )
                    is_learned = isinstance(tensor, torch.nn.Parameter)
                    tensors[name] = torch.nn.Parameter(moved) if is_learned else moved
    return module
