"""The teacher of the objective `distill`: a policy file, of which the run folder keeps a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents import Agent
from agents.objectives import Distill
from evaluation.entries import locate
from storage.files import write_atomically
from storage.policy_file import describe_space, load_policy
from storage.run_folder import RunFolder, policy_path
from training.config import AnyTrainConfig
from training.errors import TrainingError


def take_teacher(config: AnyTrainConfig, folder: RunFolder, agent: Agent[Any]) -> bytes | None:
    """Load the teacher of an agent that learns from one.

    Args:
        config: the configuration of the training.
        folder: the run folder; a run that resumes learns from the copy in it.
        agent: has not learned yet.

    Returns:
        The content of the teacher's file; None if there is no teacher.

    Raises:
        FileError: If there is no policy.
        TrainingError: If its observations or actions differ from the agent's.
    """
    objective = agent.objectives.get("distill")
    if (objective is None) != (config.teacher is None):
        raise TrainingError(
            "a teacher and the objective that learns from it belong together: give both "
            "--objectives distill and --teacher RUN"
        )
    if config.teacher is None:
        return None
    assert isinstance(objective, Distill)
    if config.agent.normalize_returns and objective.config.value_coef:
        raise TrainingError(
            "values can be learned from a teacher in a fixed unit only: add "
            "--no-normalize-returns, or --distill.value-coef 0"
        )
    resumes = folder.teacher_file.exists() and not config.fresh
    path = folder.teacher_file if resumes else policy_path(locate(config.teacher))
    file = load_policy(path)
    _check_same_task(config.teacher, agent, file.policy)
    objective.take_teacher(
        file.policy.to(agent.policy.device),
        num_envs=config.num_envs,
        value_scale=file.about.value_unit / agent.value_unit,
    )
    return path.read_bytes()


def keep_teacher(folder: RunFolder, content: bytes | None) -> None:
    """Keep a copy of the teacher in the run folder, so that the run can be resumed without it."""
    if content is not None:
        write_atomically(folder.teacher_file, content)


def _check_same_task(path: Path, agent: Agent[Any], teacher: Any) -> None:
    """Check that a teacher observes what the agent observes, and acts as it does.

    Raises:
        TrainingError: If it does not.
    """
    ours, theirs = agent.policy, teacher
    for name in sorted(ours.specs.keys() | theirs.specs.keys()):
        if ours.specs.get(name) != theirs.specs.get(name):
            raise TrainingError(
                f"the teacher {path} observes {name} differently from this training; choose the "
                "same observation, size and frame stack"
            )
    if describe_space(ours.action_space) != describe_space(theirs.action_space):
        raise TrainingError(
            f"the teacher {path} has actions {theirs.action_space}, and this training has "
            f"{ours.action_space}"
        )
