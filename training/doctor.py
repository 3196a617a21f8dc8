"""Checks of this machine, for `python train.py --doctor`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch

from agents.device import choose_precision, precision_name
from envs.doctor import check_engines
from evaluation.printing import print_line
from storage.provenance import PACKAGES, hardware, installed_version

Check = tuple[bool, str, str]
"""Whether all is well, what was checked, and what was found or is to be done."""


def check_machine() -> int:
    """Print what this machine has and lacks, and return the exit status: 0 if all is well."""
    status = 0
    for is_well, name, text in (*check_packages(), *check_engines()):
        status |= not is_well
        print_line(f"{'ok ' if is_well else 'BAD'}  {name:18} {text}")
    return status


def check_packages() -> Iterator[Check]:
    """Check what learning needs: packages, processor, GPU."""
    yield True, "python", sys.version.split()[0]
    yield from map(_check_package, PACKAGES)
    machine = hardware()
    precision = precision_name(choose_precision("auto", torch.device("cpu")))
    yield True, "processor", f"{machine['cpu']}, {machine['cores']} cores, {precision}"
    yield True, "GPU", machine["gpu"] or "none that PyTorch can use"


def _check_package(name: str) -> Check:
    installed = installed_version(name)
    return installed is not None, name, installed or 'is not installed; pip install -e "."'
