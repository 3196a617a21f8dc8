"""The run folder: everything that a training run writes.

```
config.json          configuration, command and machine
policy.safetensors   latest policy     best.safetensors   best policy by evaluation
checkpoint/          what is needed to resume
episodes/*.npz       recorded episodes
events.out.tfevents* TensorBoard       progress.csv       the same scalars
evaluation.json      result of `score` replay.mp4, replay.html, policy.onnx
teacher.safetensors  the policy that the objective distill learns from
attack.json          results of `attack`; attack.md, attack.png, attack.html
perception.safetensors  instead of policies: the best weights of a perception trained alone
wandb/, trackio/     written by `--track`; kept by --fresh
```
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import glob
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agents.device import precision_name
from storage.files import FileError, check_no_link, read_json, remove_leftovers, write_json
from storage.onnx_file import SUFFIX, PlayableFile, load_onnx
from storage.policy_file import PolicyFile, load_policy
from storage.provenance import git_revision, hardware, versions
from storage.upgrade import upgraded_config

CONFIG = "config.json"
POLICY, BEST = "policy.safetensors", "best.safetensors"
PERCEPTION = "perception.safetensors"
EVALUATION = "evaluation.json"
VIDEO, PAGE, ONNX = "replay.mp4", "replay.html", "policy.onnx"
ATTACK, ATTACK_TABLE = "attack.json", "attack.md"
ATTACK_PICTURE, ATTACK_PAGE = "attack.png", "attack.html"
SCORED = "score-"
"""What the names of pictures begin with that `score` draws of a perception."""
CHECKPOINTS, EPISODES, NOT_FINITE = "checkpoint", "episodes", "not-finite.safetensors"
TEACHER = "teacher.safetensors"

_WRITTEN = (
    POLICY,
    BEST,
    PERCEPTION,
    f"{CHECKPOINTS}/*.safetensors",
    f"{EPISODES}/*.npz",
    f"{EPISODES}/*.mp4",
    "events.out.tfevents*",
    "progress.csv",
    EVALUATION,
    VIDEO,
    PAGE,
    NOT_FINITE,
    TEACHER,
    ONNX,
    ATTACK,
    ATTACK_TABLE,
    ATTACK_PICTURE,
    ATTACK_PAGE,
    f"{SCORED}*.png",
    CONFIG,  # Last: it marks the folder as a run's.
)
_MAX_CONFIG_BYTES = 2**20
_KEPT_CHECKPOINTS = 2  # So that the newest is never the only one.


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, by name."""

    path: Path

    @property
    def config_file(self) -> Path:
        """Configuration, command and machine."""
        return self.path / CONFIG

    @property
    def holds_run(self) -> bool:
        """Whether a training run wrote into the folder."""
        return self.config_file.is_file()

    @property
    def policy_file(self) -> Path:
        """The latest policy."""
        return self.path / POLICY

    @property
    def best_file(self) -> Path:
        """The policy with the best evaluation during training."""
        return self.path / BEST

    @property
    def perception_file(self) -> Path:
        """The best weights of a perception that is trained alone."""
        return self.path / PERCEPTION

    @property
    def chosen_policy_file(self) -> Path | None:
        """The best policy by evaluation, else the latest one, else None."""
        return next((f for f in (self.best_file, self.policy_file) if f.is_file()), None)

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints, newest first: at most two, because one may be damaged."""
        return sorted(self._inside(CHECKPOINTS).glob("*.safetensors"), reverse=True)

    def checkpoint_file(self, env_steps: int) -> Path:
        """Return the checkpoint file for a number of env steps."""
        return self._inside(CHECKPOINTS) / f"{env_steps:012d}.safetensors"

    def keep_checkpoints(self, newest: Path) -> None:
        """Remove all checkpoints but the newest and the one before it.

        Checkpoints that are later than the newest are damaged: the training resumed from one
        before them.

        Args:
            newest: the checkpoint that was written last.
        """
        kept = [file for file in self.checkpoints if file <= newest][:_KEPT_CHECKPOINTS]
        for file in self.checkpoints:
            if file not in kept:
                file.unlink()

    def _inside(self, name: str) -> Path:
        """Return a folder in this one.

        Raises:
            FileError: If it is a link to another place.
        """
        check_no_link(self.path / name)
        return self.path / name

    @property
    def not_finite_file(self) -> Path:
        """The last rollout, if the training stopped because updates were not finite."""
        return self.path / NOT_FINITE

    @property
    def teacher_file(self) -> Path:
        """The policy that the objective distill learns from."""
        return self.path / TEACHER

    @property
    def episodes(self) -> Path:
        """The folder of recorded episodes."""
        return self._inside(EPISODES)

    @property
    def evaluation_file(self) -> Path:
        """The result of `score`."""
        return self.path / EVALUATION

    @contextlib.contextmanager
    def locked(self, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
        """Lock the folder against other training runs; the end of the process releases the lock.

        A folder that is new is removed again if nothing was written into it.

        Args:
            say: is called with a line if the file system has no locks.

        Raises:
            FileError: If another training run holds the lock.
        """
        is_new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileError(
                    f"another training writes into {self.path}; choose another --run-dir"
                ) from None
            except OSError as error:
                say(
                    f"{self.path} cannot be locked ({error.strerror}); take care that no other "
                    "training writes into it"
                )
            yield
        finally:
            os.close(folder)
            if is_new:
                with contextlib.suppress(OSError):  # It is not empty.
                    self.path.rmdir()

    def clear(self) -> None:
        """Remove what a run wrote; nothing is removed from a folder that holds no run.

        Raises:
            FileError: If a folder in it is a link to another place.
        """
        if not self.config_file.exists():
            return
        for name in (CHECKPOINTS, EPISODES):
            self._inside(name)
        for pattern in _WRITTEN:
            for file in self.path.glob(pattern):
                if file.is_symlink() or not file.is_dir():  # No run writes such a folder.
                    file.unlink()

    def remove_leftovers(self) -> None:
        """Remove unfinished files of programs that were killed while they wrote into the folder."""
        if self.holds_run:
            for folder in (self.path, self._inside(CHECKPOINTS), self._inside(EPISODES)):
                remove_leftovers(folder)

    def check_complete(self) -> None:
        """Check that a folder with checkpoints also holds their configuration.

        Raises:
            FileError: If it does not: nothing says then which run they belong to.
        """
        if self.checkpoints and not self.holds_run:
            raise FileError(
                f"{self.path} holds checkpoints, but no {CONFIG} that says of which run; restore "
                "it, or choose another --run-dir"
            )

    def write_config(self, config: Mapping[str, Any], precision: torch.dtype) -> None:
        """Write a configuration with everything else that is needed to repeat the run.

        Args:
            config: the configuration, as nested dictionaries.
            precision: precision of image encoders and memory; the configuration may only contain
                `auto`.
        """
        content = {
            "config": config,
            "command": shlex.join(sys.argv),
            "python": platform.python_version(),
            "versions": versions(),
            "git": git_revision(),
            "hardware": hardware(),
            "precision": precision_name(precision),
        }
        write_json(self.config_file, content)

    @property
    def is_of_perception(self) -> bool:
        """Whether it is the run of a perception without an agent.

        Raises:
            FileError: If its record is missing or damaged.
        """
        return "task" in self.read_record()["config"]

    def read_config(self) -> dict[str, Any]:
        """Read the configuration that `write_config` wrote, in this version or an older one.

        Raises:
            FileError: If it is missing or damaged.
        """
        try:
            config = self.read_record()["config"]
            if "task" in config:
                raise FileError(
                    f"{self.path} holds a perception without an agent; choose another --run-dir, "
                    "or start over with --fresh"
                )
            config = upgraded_config(config)
        except (LookupError, TypeError) as error:
            raise FileError(f"{self.config_file} is damaged") from error
        if not isinstance(config.get("objectives"), dict):
            raise FileError(f"{self.config_file} is damaged")
        return config

    def read_record(self) -> dict[str, Any]:
        """Read everything that `write_config` wrote.

        Raises:
            FileError: If it is missing or damaged.
        """
        if not self.config_file.exists():
            raise FileError(f"{self.path} is not a run folder: it has no config.json")
        record = read_json(self.config_file, _MAX_CONFIG_BYTES)
        if not isinstance(record.get("config"), dict):
            raise FileError(f"{self.config_file} is damaged")
        return record


def _hint_at_runs(run: Path) -> str:
    """Return what to name instead of a run that does not exist."""
    if glob.has_magic(str(run)) and (found := sorted(glob.glob(str(run)))):
        return f"name one of those that the pattern fits, such as {found[0]}"
    beside = [str(p.parent) for p in run.parent.glob("*/config.json")]
    beside += [str(p.parent) for p in run.parent.glob(f"*/{POLICY}")]
    if close := difflib.get_close_matches(str(run), beside, n=1):
        return f"did you mean {close[0]}?"
    known = sorted(str(p.parent) for p in Path("runs").glob("*/*/config.json"))
    return f"there are {', '.join(known[:5])}" if known else "train one with train.py"


def find_player(run: Path, *, trust: bool = False) -> tuple[PlayableFile, RunFolder]:
    """Load a policy that is only to be played: an ONNX file, or what `find_policy` finds.

    The arguments, what is returned, and the errors are those of `find_policy`.
    """
    if run.is_file() and run.suffix == SUFFIX:
        return load_onnx(run), RunFolder(run.parent)
    return find_policy(run, trust=trust)


def find_policy(run: Path, *, trust: bool = False) -> tuple[PolicyFile, RunFolder]:
    """Load the policy of a run: the best one by evaluation, else the latest one.

    Args:
        run: a run folder or a policy file.
        trust: whether modules that the file names may be imported.

    Returns:
        The policy, and the folder for results about it.

    Raises:
        FileError: If there is no policy.
    """
    path = policy_path(run)
    return load_policy(path, trust=trust), RunFolder(path.parent)


def policy_path(run: Path) -> Path:
    """Return the policy file of a run, see `find_policy`; it is not read."""
    if run.is_file() and run.suffix == SUFFIX:
        raise FileError(
            f"{run} is an ONNX file, which can be played but not changed; name the run or the "
            "policy file that it was exported from"
        )
    if run.is_file():
        return run
    folder = RunFolder(run)
    if not run.is_dir():
        raise FileError(f"there is no run at {run}; {_hint_at_runs(run)}")
    file = folder.chosen_policy_file
    if file is None and folder.perception_file.is_file():
        raise FileError(
            f"{run} holds a perception without an agent, which can be scored, or start an agent "
            "with train.py --perception-from"
        )
    if file is None:
        below = sorted(str(p.parent) for p in run.glob("*/config.json"))
        reason = "it is not a run folder, or no policy has been saved yet"
        hint = f"it holds the runs {', '.join(below[:5])}; name one" if below else reason
        raise FileError(f"{run} holds no {POLICY}: {hint}")
    if not file.resolve().is_relative_to(run.resolve()):
        raise FileError(
            f"{file} is a link to a place outside its folder; name {file.resolve()} itself"
        )
    return file
