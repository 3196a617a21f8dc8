"""`train.py see:TASK`: train perception alone, by supervised learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic

import tyro

from agents.distributed import launched_ranks
from commands.commandline import UsageError, given_values, parse
from perception import ENCODERS, MEMORIES
from storage.run_folder import RunFolder
from training.signals import until_interrupted
from training.supervised import TASKS
from training.supervised.config import (
    PREFIX,
    AnySeeConfig,
    EncoderT,
    MemoryT,
    SeeConfig,
    TaskT,
    default_see_config,
)
from training.supervised.learning import check_resumable, see

_DESCRIPTION = """Train perception alone: `python train.py see:TASK [options]`.

The same command on a run folder that exists resumes the run. The weights that are best on the
validation set are kept; the test set is read by `python evaluate.py score RUN` alone.
"""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Which entries of the registries a perception is made of."""

    encoder: Annotated[str, tyro.conf.arg(help=f"Encoder of images: {', '.join(ENCODERS)}.")]
    memory: Annotated[str, tyro.conf.arg(help=f"Memory between frames: {', '.join(MEMORIES)}.")]
    like: str | None = None
    """Observe and encode as agents do in this scenario, so that --perception-from fits there."""


@dataclass(frozen=True, kw_only=True)
class SeeCommand(Generic[TaskT, EncoderT, MemoryT]):
    """A supervised training."""

    choices: Annotated[Choices, tyro.conf.arg(name="")]
    training: Annotated[SeeConfig[TaskT, EncoderT, MemoryT], tyro.conf.arg(name="")]


def main(arguments: Sequence[str]) -> int:
    """Train as a command line says, and return the exit status.

    Args:
        arguments: the command line; the first word is `see:TASK`.

    Raises:
        UsageError: If `torchrun` started this process.
    """
    if launched_ranks():
        raise UsageError(f"{arguments[0]} is trained in one process; leave out torchrun")
    config = read_command_line(arguments)
    folder = RunFolder(config.run_dir or config.default_run_dir)
    if folder.config_file.exists() and not config.fresh:
        check_resumable(folder, config)
    with until_interrupted() as signals:
        see(config, folder, signals)
    return 128 + signals[0] if signals else 0


def read_command_line(arguments: Sequence[str]) -> AnySeeConfig:
    """Parse the command line; the defaults are those of the task.

    Raises:
        UsageError: If something on it is unknown or out of range.
        UnknownNameError: If a registry has no entry of a name.
    """
    task = arguments[0].removeprefix(PREFIX)
    if not task:
        raise UsageError(f"name a task: {', '.join(PREFIX + name for name in TASKS)}")
    chosen = {
        name: next(iter(given_values(arguments, name)), None)
        for name in ("encoder", "memory", "like")
    }
    default = default_see_config(task, **chosen)
    perception = default.perception
    choices = Choices(
        encoder=perception.encoder_name, memory=perception.memory_name, like=chosen["like"]
    )
    parts = (type(default.task), type(perception.encoder), type(perception.memory))
    command: SeeCommand[Any, Any, Any] = parse(
        SeeCommand[parts],  # type: ignore[misc, valid-type] # chosen at run time
        arguments[1:],
        program=f"python train.py {PREFIX}{task}",
        description=_DESCRIPTION,
        default=SeeCommand(choices=choices, training=default),
    )
    return command.training
