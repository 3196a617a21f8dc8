"""Perception files: the weights of a perception that was trained alone, and of its head.

`perception.safetensors` is everything that is needed to score it, and to start an agent with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from agents.policy import Specs
from perception import PerceptionConfig
from storage.files import FileError, decode
from storage.policy_file import parse_perception, parse_specs
from storage.run_folder import RunFolder, find_policy
from storage.tensor_file import TensorFile, expect_kinds, kind_of, one_line, write_tensors


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How a perception was trained.

    Attributes:
        task: the task's name.
        epoch: passes over the examples until its weights.
        score: of the validation set, then.
        source: SHA-256 of the data.
    """

    task: str = ""
    epoch: int = 0
    score: float = 0.0
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class PerceptionFile:
    """The content of a perception file.

    Attributes:
        path: the file.
        tensors: weights by name: those of the perception under `perception.`, of the head under
            `head.`.
        specs: what is observed, by part.
        config: encoders and memory.
        normalize_obs: whether images are normalised.
        task: the configuration of the task, as JSON; empty for the perception of a policy.
        trained: how it was trained without an agent.
    """

    path: Path
    tensors: dict[str, Tensor]
    specs: Specs
    config: PerceptionConfig[Any, Any]
    normalize_obs: bool
    task: dict[str, Any] = field(default_factory=dict)
    trained: Trained = field(default_factory=Trained)

    def load_into(self, network: nn.Module) -> None:
        """Load the weights into a network that was made as the file says.

        Raises:
            FileError: If they do not fit it.
        """
        try:
            kinds = {name: kind_of(tensor) for name, tensor in self.tensors.items()}
            expect_kinds(kinds, network.state_dict())
            network.load_state_dict(self.tensors)
        except (ValueError, RuntimeError) as error:
            raise FileError(f"{self.path} does not fit its task: {one_line(error)}") from error


def perception_file(run: Path) -> Path | None:
    """Return the file of a perception that was trained alone, or None if a run is not one.

    Args:
        run: a run folder or a file.
    """
    path = RunFolder(run).perception_file if run.is_dir() else run
    if not path.is_file() or path.suffix != ".safetensors":
        return None
    return path if "trained" in TensorFile(path).description else None


def find_perception(run: Path) -> PerceptionFile:
    """Load a perception that was trained alone, or the perception of a policy.

    Args:
        run: a run folder or a file.

    Raises:
        FileError: If there is neither.
    """
    if path := perception_file(run):
        return load_perception(path)
    policy = find_policy(run)[0].policy
    return PerceptionFile(
        path=run,
        tensors=policy.state_dict(),
        specs=policy.specs,
        config=policy.config,
        normalize_obs=policy.normalize_obs,
    )


def save_perception(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    specs: Specs,
    config: PerceptionConfig[Any, Any],
    normalize_obs: bool,
    task: Mapping[str, Any],
    trained: Trained,
) -> None:
    """Write a perception file; for the arguments, see `PerceptionFile`."""
    description = {
        "specs": {name: asdict(spec) for name, spec in specs.items()},
        "perception": config.as_dict(),
        "normalize_obs": normalize_obs,
        "task": dict(task),
        "trained": asdict(trained),
    }
    write_tensors(path, tensors, description)


def load_perception(path: Path) -> PerceptionFile:
    """Read a perception file.

    Raises:
        FileError: If it is not one, or damaged.
    """
    file = TensorFile(path)
    description = file.description
    try:
        return PerceptionFile(
            path=path,
            tensors=file.tensors(),
            specs=parse_specs(description["specs"]),
            config=parse_perception(description["perception"]),
            normalize_obs=decode(bool, description["normalize_obs"]),
            task=dict(description["task"]),
            trained=decode(Trained, description["trained"]),
        )
    except FileError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise FileError(f"{path} is no perception of doomgrad: {one_line(error)}") from error
