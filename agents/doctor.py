"""What this machine has for learning, for `python train.py --doctor`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from agents.device import choose_precision, precision_name
from agents.run import PACKAGES, hardware


def findings() -> Iterator[tuple[bool, str, str]]:
    """Tell whether it is well, what it is about, and what was found or is to be done."""
    yield True, "python", sys.version.split()[0]
    yield from map(_package, PACKAGES)
    machine = hardware()
    precision = precision_name(choose_precision("auto", torch.device("cpu")))
    yield True, "processor", f"{machine['cpu']}, {machine['cores']} cores, {precision}"
    yield True, "GPU", machine["gpu"] or "none that PyTorch can use"


def _package(name: str) -> tuple[bool, str, str]:
    try:
        return True, name, version(name)
    except PackageNotFoundError:
        return False, name, 'is not installed: pip install -e "."'
