"""A GPU that computes nothing: tensors on it have shapes, dtypes and a device, but no numbers.

PyTorch's fake tensors may claim to be on a GPU where there is none, once a guard for that kind of
device is registered, in C++. So the code that is for a GPU runs, each operation on tensors of
several devices raises as it would there, and copies between devices can be counted. Backward passes
cannot be run; tests run them on the meta device instead.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
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
HAS_COMPILER = any(map(shutil.which, ("c++", "g++", "clang++")))

needs_compiler = pytest.mark.skipif(
    torch.cuda.is_available() or not HAS_COMPILER,
    reason="needs a C++ compiler, and no real GPU",
)
_registered = threading.Event()


def register_guard(folder: Path) -> None:
    """Let fake tensors be on a GPU; it takes a few seconds, once in a process."""
    if _registered.is_set():
        return
    source = folder / "fake_cuda_guard.cpp"
    source.write_text(GUARD)
    with pytest.MonkeyPatch.context() as patch:
        # Ninja, which builds, is installed beside Python.
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
        cpp_extension.load(
            "fake_cuda_guard", [str(source)], build_directory=str(folder), is_python_module=False
        )
    _registered.set()


def _contiguous_gradients(loss, parameters):
    return [torch.empty(p.shape, dtype=p.dtype, device=p.device) for p in parameters]


class Transfers(TorchDispatchMode):
    """Counts copies between devices: `up` to the GPU, `down` from it."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Count, and go on."""
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if func is torch.ops.aten.copy_.default else args[0]
            devices = source.device.type, result.device.type
            self.count.update({("cpu", "cuda"): ["up"], ("cuda", "cpu"): ["down"]}.get(devices, []))
        return result


@contextlib.contextmanager
def fake_gpu():
    """Make every new tensor a fake one, and numbers that are asked for zeros.

    Yields:
        A `Transfers`; each number that is asked for counts as `read`.
    """
    transfers, patch = Transfers(), pytest.MonkeyPatch()
    numpy = torch.Tensor.numpy

    def fake_numpy(tensor, **options):
        if not isinstance(tensor, fake_tensor.FakeTensor):
            return numpy(tensor, **options)
        assert tensor.device.type == "cpu", "NumPy reads the CPU's memory alone"
        return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))

    def fake_tolist(tensor):
        transfers.count["read"] += tensor.device.type == "cuda"
        # All is well, whatever is asked.
        return np.ones(tensor.shape, str(tensor.dtype).removeprefix("torch.")).tolist()

    patch.setattr(torch.Tensor, "numpy", fake_numpy)
    patch.setattr(fake_tensor.FakeTensor, "tolist", fake_tolist)
    # The engine that runs backward asks the GPU's library for streams, which is not there.
    patch.setattr(torch.autograd, "grad", _contiguous_gradients)
    # Else small tensors hold numbers after all, which asks the GPU's library for them.
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
