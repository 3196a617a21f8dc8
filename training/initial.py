"""Starting a new training run from the weights of a trained policy, instead of random ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents import Agent
from agents.policy import Policy
from evaluation.entries import locate
from perception import ImageSpec, Spec, VectorSpec
from storage.checkpoint import under
from storage.files import FileError
from storage.perception_file import PerceptionFile, find_perception
from storage.policy_file import About, describe_space
from storage.run_folder import find_policy
from training.config import AnyTrainConfig, dotted
from training.errors import TrainingError

_PALETTE = "decoder.palette"


def initialize_from(path: Path, agent: Agent[Any], config: AnyTrainConfig) -> str:
    """Copy a trained policy's weights into a new agent, as far as they fit its task.

    Perception is copied always, with its statistics of observations; the actor if the actions are
    the same; the critic if the environment is the same. The state of the optimiser is new.

    Args:
        path: a run folder, a policy file, or `zoo/NAME`.
        agent: has not learned yet.
        config: the configuration of the training.

    Returns:
        A line that says what was copied.

    Raises:
        FileError: If there is no policy.
        TrainingError: If its perception differs from the agent's.
    """
    file, _ = find_policy(locate(path))
    ours, theirs = agent.policy, file.policy
    _check_same_perception(path, ours, theirs)
    ours.perception.load_state_dict(_without_palettes(theirs.perception.state_dict()), strict=False)
    copied: list[str] = ["perception"]
    new: list[str] = []
    same_actions = describe_space(ours.action_space) == describe_space(theirs.action_space)
    same_env = config.env.env == file.env.get("env")
    (copied if same_actions else new).append("actor")
    (copied if same_env else new).append("critic")
    if same_actions:
        ours.actor.load_state_dict(theirs.actor.state_dict())
    if same_env:
        _copy_critic(agent, theirs, file.about, config)
    rest = f"; new: {' and '.join(new)}" if new else ""
    return f"starting from {path}: {', '.join(copied)}{rest}"


def normalization_of(path: Path) -> dict[str, bool]:
    """Return whether a trained perception normalises images, as the agent's `normalize_obs`.

    An agent that starts with its encoder must do the same.

    Args:
        path: see `copy_encoders`.

    Returns:
        The field by name; nothing if there is no perception, as when a run resumes without it.
    """
    try:
        return {"normalize_obs": find_perception(locate(path)).normalize_obs}
    except FileError:
        return {}


def copy_encoders(path: Path, agent: Agent[Any]) -> str:
    """Copy the image encoders of a trained perception into a new agent.

    Its memory, actor and critic are new. Palettes may differ, since encoders see colours.

    Args:
        path: a run folder of `see:TASK` or of an agent, one of their files, or `zoo/NAME`.
        agent: has not learned yet.

    Returns:
        A line that says what was copied.

    Raises:
        FileError: If there is no perception.
        TrainingError: If its encoder does not fit the agent's observations.
    """
    theirs, ours = find_perception(locate(path)), agent.policy
    if not ours.perception.image_names:
        raise TrainingError(f"{path} encodes images, and this training observes none")
    for name in ours.perception.image_names:
        seen = _seen(ours.specs[name])
        source = next((n for n, spec in theirs.specs.items() if _seen(spec) == seen), None)
        if source is None:
            others = ", ".join(str(_seen(spec)) for spec in theirs.specs.values())
            raise TrainingError(
                f"{path} observes {others}, this training {seen}; choose the same observation, "
                "size and frame stack"
            )
        _check_same(path, _encoding(theirs), _encoding(ours))
        for part in ("encoders", "norms"):
            tensors = under(f"perception.{part}.{source}.", theirs.tensors)
            renamed = {f"{name}.{tensor}": value for tensor, value in tensors.items()}
            getattr(ours.perception, part).load_state_dict(_without_palettes(renamed), strict=False)
    how = "" if theirs.normalize_obs else "not "
    return (
        f"starting with the image encoder of {path}, whose observations are {how}normalised; "
        "new: memory, actor and critic"
    )


def _without_palettes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without the colours of indices, which belong to the environment."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_PALETTE)}


def _check_same_perception(path: Path, ours: Policy, theirs: Policy) -> None:
    """Check that two policies observe the same, with the same encoders and memory.

    Raises:
        TrainingError: If they do not.
    """
    if _observed(ours) != _observed(theirs):
        raise TrainingError(
            f"{path} observes {_observed(theirs)}, this training {_observed(ours)}; choose the "
            "same observation, size and frame stack"
        )
    before, now = dotted(theirs.config.as_dict()), dotted(ours.config.as_dict())
    before["normalize_obs"], now["normalize_obs"] = theirs.normalize_obs, ours.normalize_obs
    _check_same(path, before, now)


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    names = sorted(before.keys() | now.keys())
    for name in sorted(names, key=lambda name: not name.endswith(".name")):
        if before.get(name) != now.get(name):
            raise TrainingError(
                f"{path} was trained with {name} {before.get(name)}, not {now.get(name)}; "
                "choose the same perception"
            )


def _observed(policy: Policy) -> dict[str, object]:
    """Return what a policy observes, by part; the colours of a palette may differ."""
    return {name: _seen(spec) for name, spec in policy.specs.items()}


def _seen(spec: Spec) -> object:
    if isinstance(spec, ImageSpec):
        return (spec.shape, spec.channels)
    return spec.size if isinstance(spec, VectorSpec) else spec


def _encoding(perception: Policy | PerceptionFile) -> dict[str, object]:
    """Return what the weights of an image encoder depend on."""
    config = perception.config.as_dict()
    encoder = {f"encoder.{name}": value for name, value in config["encoder"].items()}
    others = {"layer_norm": config["layer_norm"], "normalize_obs": perception.normalize_obs}
    return dotted({**encoder, **others})


def _copy_critic(agent: Agent[Any], theirs: Policy, about: About, config: AnyTrainConfig) -> None:
    """Copy the critic such that it predicts the same native rewards as before."""
    if config.agent.normalize_returns:
        # The running deviation of returns continues from theirs, with the weight of one rollout.
        deviation = about.value_unit * config.agent.reward_scale
        scaler = agent.reward_scaler
        scaler.merge(
            scaler.mean, torch.full_like(scaler.variance, deviation**2), config.env_steps_per_update
        )
    scale = about.value_unit / agent.value_unit
    state = {name: tensor * scale for name, tensor in theirs.critic.state_dict().items()}
    agent.policy.critic.load_state_dict(state)
