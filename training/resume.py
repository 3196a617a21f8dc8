"""Resuming a training run from its last checkpoint.

Fields that may differ then are declared in `training.config` by `resumable`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from agents import Agent
from envs.doom.cfg import split_file
from envs.moved import difference
from evaluation.printing import print_line
from evaluation.seeds import first_training_seed
from perception import PerceptionConfig
from storage.checkpoint import load_training
from storage.files import DamagedError, FileError, decode
from storage.run_folder import RunFolder
from storage.tensor_file import TensorFile
from training.config import AnyTrainConfig, TrainConfig, dotted, dotted_fields
from training.progress import Progress, has_ended

LoadedT = TypeVar("LoadedT")


def resume(
    folder: RunFolder, agent: Agent[Any], config: AnyTrainConfig
) -> tuple[Progress, dict[str, Tensor]]:
    """Restore an agent from the folder's last undamaged checkpoint, or start from the beginning.

    Returns:
        The progress, and the collector's state, empty if none was saved.

    Raises:
        FileError: If the folder holds a policy but no checkpoint, or only damaged ones, or
            checkpoints but no configuration.
    """
    folder.check_complete()
    if config.fresh or not folder.checkpoints:
        if folder.policy_file.exists() and not config.fresh:
            raise FileError(
                f"{folder.path} holds a policy but no checkpoint to resume from; choose another "
                "--run-dir, or start over with --fresh"
            )
        first = first_training_seed(config.seed)
        return Progress(next_episode_seed=first, next_evaluation=config.evaluation_interval), {}
    say = functools.partial(print_line, file=sys.stderr)
    state, collector_state = load_newest(
        folder, lambda file: load_training(file, agent, say, num_ranks=config.num_ranks), say
    )
    try:
        progress = decode(Progress, state)
    except FileError as error:
        raise FileError(
            f"{folder.path} holds a checkpoint that no training wrote ({error}); use --fresh to "
            "start over"
        ) from error
    say(f"resuming at {progress.env_steps:,} env steps in {folder.path}")
    return progress, collector_state


def is_complete(folder: RunFolder, total_env_steps: int) -> bool:
    """Return whether a training run has nothing left to do, without loading what it learned.

    If anything in the folder is missing or damaged, it has: the training itself says what.

    Args:
        folder: the run folder.
        total_env_steps: the length that the training is to have.
    """
    try:
        state = TensorFile(folder.checkpoints[0]).description["state"]
        progress, patience = decode(Progress, state), folder.read_config()["patience"]
        saved = TensorFile(folder.policy_file).description["about"]["env_steps"]
        is_saved = saved == progress.env_steps and folder.chosen_policy_file is not None
        has_all = has_ended(progress, total_env_steps, patience) and not progress.lacks_evaluation
        return is_saved and has_all
    except (FileError, LookupError, TypeError):
        return False


def load_newest(
    folder: RunFolder, load: Callable[[Path], LoadedT], say: Callable[[str], None]
) -> LoadedT:
    """Return what the folder's last undamaged checkpoint holds.

    Args:
        folder: the run folder; it has checkpoints.
        load: loads one.
        say: is called with a line if the last one is damaged.

    Raises:
        DamagedError: If there is only a damaged one, or the one before it is damaged, too.
    """
    newest, *older = folder.checkpoints
    try:
        return load(newest)
    except DamagedError as error:
        if not older:
            raise
        say(f"{error}; resuming from the checkpoint before it")
        return load(older[0])


def lost_episodes(number: int) -> str:
    """Return the message about episodes in progress that `Collector.load_state` lost."""
    return (
        f"{number} episodes in progress could not be restored (the environment is not "
        "deterministic); starting new ones"
    )


def check_resumable(folder: RunFolder, config: AnyTrainConfig) -> None:
    """Check that a configuration may resume the run in a folder.

    Raises:
        FileError: If it differs in a field that changes what is learned.
    """
    stored = folder.read_config()
    before, now = dotted(stored), dotted(config.as_dict())
    before["objectives"] = " ".join(stored["objectives"]) or "none"
    now["objectives"] = " ".join(config.objective_configs) or "none"
    free = set(dotted_fields(config, lambda metadata: metadata.get("resumable", False)))
    # A field that the folder lacks is newer than it: the run was created with the default.
    default = TrainConfig(
        env=type(config.env)(env=config.env.env),
        perception=PerceptionConfig(
            encoder=type(config.perception.encoder)(), memory=type(config.perception.memory)()
        ),
        agent=type(config.agent)(),
        objectives=type(config.objectives)(),
    )
    before = dotted(default.as_dict()) | before
    _compare_files(folder, before, now)
    check_same(folder, before, now, free)


def check_same(
    folder: RunFolder, before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str]
) -> None:
    """Check that two configurations are the same.

    Args:
        folder: the run folder.
        before: the stored configuration by dotted name.
        now: the configuration that is to resume it.
        free: names that may differ.

    Raises:
        FileError: If they differ.
    """
    order = sorted(now, key=lambda name: not name.endswith((".name", "objectives")))
    for name in order:
        if name not in free and before.get(name) != now[name]:
            raise FileError(
                f"{folder.path} holds a run with {name} {before.get(name)!s:.300}, not "
                f"{now[name]}; choose another --run-dir, or start over with --fresh"
            )


def _compare_files(folder: RunFolder, before: dict[str, Any], now: Mapping[str, Any]) -> None:
    """Take the files of an environment as the same, wherever they are, if their content is.

    Args:
        folder: the run folder.
        before: the stored configuration by dotted name; its `env.env` is changed.
        now: the configuration that is to resume it.

    Raises:
        FileError: If their content differs.
    """
    noted, env = before["env.files"], str(now["env.env"])
    if not noted or not isinstance(noted, list) or split_file(env) is None:
        return
    if different := difference(env, [str(note) for note in noted]):
        raise FileError(
            f"{folder.path} holds a run with other files: {different}; restore them, choose "
            "another --run-dir, or start over with --fresh"
        )
    before["env.env"] = env
