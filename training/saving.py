"""Saving a training run: checkpoints, the latest policy, and the best one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from agents import Agent
from storage.checkpoint import save_training
from storage.files import FileError
from storage.policy_file import load_policy, save_policy
from storage.run_folder import RunFolder
from training.about import about_policy
from training.config import AnyTrainConfig
from training.guard import continuing_without_disk
from training.progress import Progress


def save_all(
    folder: RunFolder,
    agent: Agent[Any],
    config: AnyTrainConfig,
    progress: Progress,
    collector_state: Mapping[str, Tensor],
    say: Callable[[str], None],
) -> bool:
    """Write a checkpoint and the latest policy, and return whether they could be written.

    Args:
        folder: the run folder.
        agent: the agent.
        config: the configuration.
        progress: the progress.
        collector_state: see `Collector.state`; empty if episodes in progress cannot be resumed.
        say: is called with a line about what cannot be written.
    """
    with continuing_without_disk(say) as written:
        if not folder.holds_run:  # Somebody removed it during the training.
            precision = agent.policy.perception.precision
            folder.write_config(config.as_dict(), precision)
        file = folder.checkpoint_file(progress.env_steps)
        save_training(file, agent, asdict(progress), collector_state)
        folder.keep_checkpoints(file)
        save_as_policy_file(folder, agent, config, progress)
        written.append(True)
    return bool(written)


def bring_policy_up_to_date(
    folder: RunFolder, agent: Agent[Any], config: AnyTrainConfig, progress: Progress
) -> None:
    """Write the latest policy if the program was killed between the checkpoint and it."""
    try:
        written = load_policy(folder.policy_file).about.env_steps
    except FileError:
        written = None
    if written != progress.env_steps:
        save_as_policy_file(folder, agent, config, progress)


def save_as_policy_file(
    folder: RunFolder,
    agent: Agent[Any],
    config: AnyTrainConfig,
    progress: Progress,
    *,
    best: bool = False,
) -> None:
    """Write the latest policy, or the best one, with its environment and how it was trained."""
    about = about_policy(config, agent, progress.env_steps, round(progress.seconds, 1))
    path = folder.best_file if best else folder.policy_file
    save_policy(path, agent.policy, env=asdict(config.env), about=about, imports=config.import_)
