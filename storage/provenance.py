"""What a result depends on: versions of packages, the commit of the code, the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numpy", "gymnasium", "vizdoom", "stable-baselines3", "opencv-python")
"""The packages whose versions are recorded."""
# Packages that are installed by one of several names.
_NAMES = {
    "opencv-python": (
        "opencv-python",
        "opencv-python-headless",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    )
}


def installed_version(package: str) -> str | None:
    """Return the version of a package by any of its names; None if it is not installed."""
    for name in _NAMES.get(package, (package,)):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return None


def versions() -> dict[str, str]:
    """Return the versions of the main packages; packages that are not installed are left out."""
    found = {name: installed_version(name) for name in PACKAGES}
    return {name: installed for name, installed in found.items() if installed}


def git_revision() -> str | None:
    """Return the commit of the code, with `-dirty` if it was changed; None outside a checkout."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def hardware() -> dict[str, Any]:
    """Return the facts about the machine that matter for speed."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model, "cores": os.cpu_count(), "gpu": gpu, "system": platform.system()}
