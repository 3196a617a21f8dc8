"""The run folder: what a training leaves behind, enough to score it, watch it and go on with it.

```
config.json          everything needed to repeat it
policy.safetensors   latest            best.safetensors   best by evaluation
checkpoint/          what going on needs
episodes/*.npz       recorded episodes
events.out.tfevents* TensorBoard       progress.csv       the same scalars
evaluation.json      what `score` found                   replay.mp4   policy.onnx
wandb/, trackio/     what `--track` left; --fresh keeps it, as trackers keep everything
```
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from agents.checkpoint import FileError, PolicyFile, load_policy, write_atomically
from agents.commandline import UsageError
from agents.device import precision_name

_WRITTEN = (
    *("policy.safetensors", "best.safetensors", "checkpoint/*.safetensors"),
    *("episodes/*.npz", "episodes/*.mp4", "events.out.tfevents*", "progress.csv"),
    *("evaluation.json", "replay.mp4", "replay.html", "not-finite.safetensors"),
    "policy.onnx",
    "config.json",  # Last: it marks the folder as a run's.
)
_MAX_CONFIG_BYTES = 2**20
PACKAGES = ("torch", "numpy", "gymnasium", "vizdoom", "stable-baselines3", "opencv-python")


@dataclass(frozen=True)
class RunFolder:
    """Where everything of a run is."""

    path: Path

    @property
    def config_file(self) -> Path:
        """Everything needed to repeat the run."""
        return self.path / "config.json"

    @property
    def holds_run(self) -> bool:
        """Whether a training wrote into it, which results about it may join."""
        return self.config_file.is_file()

    @property
    def policy_file(self) -> Path:
        """The latest policy."""
        return self.path / "policy.safetensors"

    @property
    def best_file(self) -> Path:
        """The policy that scored best in an evaluation during training."""
        return self.path / "best.safetensors"

    @property
    def chosen_policy_file(self) -> Path | None:
        """The best policy by evaluation if there is one, else the latest, if there is one."""
        return next((f for f in (self.best_file, self.policy_file) if f.is_file()), None)

    @property
    def checkpoints(self) -> list[Path]:
        """What going on with the training needs, newest first: two, as one may be damaged."""
        return sorted((self.path / "checkpoint").glob("*.safetensors"), reverse=True)

    def checkpoint_file(self, env_steps: int) -> Path:
        """Name the checkpoint that is taken after so many env steps."""
        return self.path / "checkpoint" / f"{env_steps:012d}.safetensors"

    @property
    def not_finite_file(self) -> Path:
        """The rollout that could not be learned from, if that is why the training stopped."""
        return self.path / "not-finite.safetensors"

    @property
    def episodes(self) -> Path:
        """Recorded episodes."""
        return self.path / "episodes"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other training out of the folder, for as long as this process lives at most.

        Raises:
            UsageError: If another one is in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise UsageError(
                f"another training writes into {self.path}; choose another --run-dir"
            ) from None
        finally:
            os.close(folder)

    def clear(self) -> None:
        """Remove what a run wrote; a folder that holds no run is left alone."""
        if not self.config_file.exists():
            return
        for pattern in _WRITTEN:
            for file in self.path.glob(pattern):
                file.unlink()

    def write_config(self, config: Mapping[str, Any], precision: torch.dtype) -> None:
        """Write a configuration with what else it takes to repeat the run.

        Args:
            config: as asked for.
            precision: what images are encoded with, which `auto` in it does not tell.
        """
        content = {
            "config": config,
            "command": " ".join(sys.argv),
            "python": platform.python_version(),
            "versions": versions(),
            "git": git_revision(),
            "hardware": hardware(),
            "precision": precision_name(precision),
        }
        write_atomically(
            self.config_file, (json.dumps(content, indent=2, default=str) + "\n").encode()
        )

    def read_config(self) -> dict[str, Any]:
        """Read the configuration that `write_config` wrote.

        Raises:
            FileError: If it is missing or damaged.
        """
        config: dict[str, Any] = self.read_record()["config"]
        return config

    def read_record(self) -> dict[str, Any]:
        """Read a configuration with what else it takes to repeat the run.

        Raises:
            FileError: If it is missing or damaged.
        """
        if not self.config_file.exists():
            raise FileError(f"{self.path} is not a run folder: it has no config.json")
        record = read_json(self.config_file, _MAX_CONFIG_BYTES)
        if not isinstance(record.get("config"), dict):
            raise FileError(f"{self.config_file} is damaged")
        return record


def read_json(path: Path, largest: int) -> dict[str, Any]:
    """Read a JSON object that a stranger may have written.

    Args:
        path: the file.
        largest: size in bytes beyond which it is not read.

    Raises:
        FileError: If it is larger, or no JSON object.
    """
    try:
        if path.stat().st_size > largest:
            raise FileError(f"{path} is too large to be what its name says")
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} is damaged") from error


def find_policy(run: Path) -> tuple[PolicyFile, RunFolder]:
    """Load the policy of a run: the best one by evaluation if there is one, else the latest.

    Args:
        run: a run folder or a policy file.

    Returns:
        The policy, and the folder that results about it belong into.

    Raises:
        FileError: If there is none.
    """
    if run.is_file():
        return load_policy(run), RunFolder(run.parent)
    folder = RunFolder(run)
    if not run.is_dir():
        known = sorted(str(p.parent) for p in Path("runs").glob("*/*/config.json"))
        hint = f"there are {', '.join(known[:5])}" if known else "train one with train.py"
        raise FileError(f"there is no run at {run}; {hint}")
    file = folder.chosen_policy_file
    if file is None:
        raise FileError(
            f"{run} holds no policy.safetensors, so it is no run folder, or an unborn one"
        )
    if not file.resolve().is_relative_to(run.resolve()):
        raise FileError(f"{file} is a link out of its folder; name {file.resolve()} itself")
    return load_policy(file), folder


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on most; what is not installed is left out."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # OpenCV comes by several names.
            found[name] = version(name)
    return found


def git_revision() -> str | None:
    """Give the commit of the code, marked `-dirty` if it was changed; None outside a checkout."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def hardware() -> dict[str, Any]:
    """Describe the machine as far as it matters for speed."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model, "cores": os.cpu_count(), "gpu": gpu, "system": platform.system()}
