"""Policy files: weights, how they are arranged, and the environment they were trained in.

`policy.safetensors` is everything that is needed to run a policy.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

from agents.errors import AgentError
from agents.policy import Policy, Specs
from perception import (
    ENCODERS,
    MEMORIES,
    ImageSpec,
    PerceptionConfig,
    SoundConfig,
    SoundSpec,
    Spec,
    TextConfig,
    TextSpec,
    VectorSpec,
)
from perception.encoders import VectorConfig
from perception.lookup import UnknownNameError, check_name
from storage.extensions import import_extensions
from storage.files import FileError, decode
from storage.limits import MOST_CHOICES, MOST_PARTS, check_limits, check_observed
from storage.tensor_file import (
    FORMAT,
    TensorFile,
    expect_kinds,
    kind_of,
    one_line,
    write_tensors,
)
from storage.upgrade import upgraded_perception, upgraded_tensor_name

_LONGEST_NAME = 100  # Characters of the name of an agent.


@dataclass(frozen=True, kw_only=True)
class About:
    """How a policy was trained.

    Attributes:
        agent: the agent's name.
        seed: seed of the training.
        env_steps: env steps of the training, over all environments.
        seconds: that they took.
        gamma: by which its critic discounts an env step; 0 if that is not known.
        value_unit: the native reward that corresponds to a value of 1.

    Raises:
        ValueError: If a value is out of range.
    """

    agent: str = ""
    seed: int = 0
    env_steps: int = 0
    seconds: float = 0.0
    gamma: float = 0.0
    value_unit: float = 1.0

    def __post_init__(self) -> None:
        """Check ranges."""
        if not (0 <= self.gamma <= 1 and 0 < self.value_unit < math.inf):
            raise ValueError(f"gamma {self.gamma} or value_unit {self.value_unit} is out of range")
        if not (self.env_steps >= 0 and 0 <= self.seconds < math.inf):
            raise ValueError(
                f"env_steps ({self.env_steps}) and seconds ({self.seconds}) must not be negative"
            )
        if not (self.seed >= 0 and len(self.agent) <= _LONGEST_NAME):
            raise ValueError(f"seed {self.seed} or agent {self.agent:.20} is not one of a training")


@dataclass(frozen=True, kw_only=True)
class PolicyFile:
    """The content of a policy file.

    Attributes:
        policy: ready to act.
        env: fields of the configuration of the environment that it was trained in.
        about: how it was trained.
        imports: modules of the user's own that were imported for its training.
    """

    policy: Policy
    env: dict[str, Any]
    about: About
    imports: tuple[str, ...] = ()


def save_policy(
    path: Path,
    policy: Policy,
    *,
    env: Mapping[str, Any],
    about: About,
    imports: Sequence[str] = (),
) -> None:
    """Write a policy file.

    Args:
        path: the file.
        policy: the policy.
        env: fields of the environment's configuration.
        about: how it was trained.
        imports: see `PolicyFile`.
    """
    description = {
        "env": dict(env),
        "about": asdict(about),
        **_describe(policy),
        "imports": list(imports),
    }
    write_tensors(path, policy.state_dict(), description)


def digest(policy: Policy) -> str:
    """Return a short text that differs for different weights."""
    found = hashlib.sha256()
    for name, tensor in policy.state_dict().items():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def check_can_be_read(policy: Policy) -> None:
    """Check that a file of a policy could be read: before its training, not after.

    Raises:
        AgentError: If it could not, or if the policy is too large.
    """
    check_limits(policy)
    try:
        described = _described(json.loads(json.dumps(_describe(policy))))
        kinds = {name: kind_of(tensor) for name, tensor in policy.state_dict().items()}
        expect_kinds(kinds, described.state_dict())
    except AgentError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise AgentError(f"a file of this policy could not be read: {one_line(error)}") from error


def load_policy(path: Path, *, trust: bool = False) -> PolicyFile:
    """Read a policy file, of this version or an older one.

    Args:
        path: the file.
        trust: whether modules that the file names may be imported.

    Raises:
        FileError: If the file is not a policy file, is damaged, or its weights do not fit its
            description.
    """
    file = TensorFile(path)
    description, is_old = file.description, file.description["format"] < FORMAT
    renamed = upgraded_tensor_name if is_old else str
    imports = _parse_imports(path, description)
    if trust:
        import_extensions(imports, path.parent)
    try:
        if is_old:
            perception = upgraded_perception(description["perception"])
            description = {**description, "perception": perception}
        # First without allocating memory: a file may describe a network of any size, whatever
        # weights it contains.
        policy = _described(description)
        expect_kinds({renamed(n): k for n, k in file.kinds.items()}, policy.state_dict())
        env, about = dict(description["env"]), decode(About, description["about"])
    except UnknownNameError as error:
        if not imports:
            raise FileError(f"{path} is not a policy of doomgrad: {error}") from error
        raise FileError(
            f"{path} has an {error}; it was trained with --import {' '.join(imports)}: if you "
            "trust that code, add --trust to evaluate.py, or this --import to train.py"
        ) from error
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = one_line(error)
        raise FileError(f"{path} is not a policy of doomgrad: {reason}") from error
    # The tensors of the file become those of the policy, which is not initialised first.
    tensors = {renamed(name): tensor for name, tensor in file.tensors().items()}
    if imports:  # Modules of others may hold tensors that are not in their state.
        policy = _described(description, "cpu")
    policy.load_state_dict(tensors, assign=True)
    return PolicyFile(policy=policy.eval(), env=env, about=about, imports=imports)


def _describe(policy: Policy) -> dict[str, Any]:
    """Return the description of a policy, as JSON."""
    return {
        "perception": policy.config.as_dict(),
        "specs": {name: asdict(spec) for name, spec in policy.specs.items()},
        "actions": describe_space(policy.action_space),
        "normalize_obs": policy.normalize_obs,
    }


def _described(description: Mapping[str, Any], device: str = "meta") -> Policy:
    """Return the policy that `_describe` described, without its weights.

    Raises:
        AgentError: If it is too large.
        ValueError: If it does not describe one.
    """
    parts = (
        parse_specs(description["specs"]),
        parse_space(description["actions"]),
        parse_perception(description["perception"]),
        bool(description["normalize_obs"]),
    )
    with torch.device(device):
        policy = Policy(*parts)
    check_limits(policy)
    return policy


def _parse_imports(path: Path, description: Mapping[str, Any]) -> tuple[str, ...]:
    imports = description.get("imports", [])
    if not isinstance(imports, list) or not all(isinstance(name, str) for name in imports):
        raise FileError(f"{path} is not a policy of doomgrad: imports is not a list of names")
    return tuple(imports)


def parse_perception(description: Mapping[str, Any]) -> PerceptionConfig[Any, Any]:
    """Return the configuration that `PerceptionConfig.as_dict` describes.

    Raises:
        ValueError: If it does not describe one.
    """
    known = {"encoder", "memory", "vectors", "sound", "text", "layer_norm"}
    unknown = description.keys() - known
    if unknown:
        raise FileError(f"there is no field {min(unknown)!r}")
    return PerceptionConfig(
        encoder=parse_named(ENCODERS, description["encoder"], "encoder"),
        memory=parse_named(MEMORIES, description["memory"], "memory"),
        vectors=decode(VectorConfig, description["vectors"]),
        sound=decode(SoundConfig, description.get("sound", {})),
        text=decode(TextConfig, description.get("text", {})),
        layer_norm=decode(bool, description.get("layer_norm", False)),
    )


def parse_named(
    registry: Mapping[str, tuple[type[Any], type[Any]]], description: Mapping[str, Any], kind: str
) -> Any:
    """Return the configuration that `as_named_dict` describes.

    Raises:
        ValueError: If it does not describe one.
    """
    check_name(registry, description["name"], kind)
    fields = {name: value for name, value in description.items() if name != "name"}
    return decode(registry[description["name"]][0], fields)


def parse_specs(description: Mapping[str, Any]) -> Specs:
    """Return the specifications that `Policy.specs` were described as.

    Raises:
        ValueError: If they are none.
    """
    if len(description) > MOST_PARTS:
        raise ValueError(f"observations have {len(description):,} parts; at most {MOST_PARTS}")
    specs: Specs = {name: decode(_kind_of(spec), spec) for name, spec in description.items()}
    if not specs:
        raise ValueError("it observes nothing")
    check_observed(specs)
    return specs


def _kind_of(spec: Mapping[str, Any]) -> type[Spec]:
    """Return the class that a description is of, which one of its fields tells."""
    kinds = {"shape": ImageSpec, "num_samples": SoundSpec, "vocabulary": TextSpec}
    return next((kind for field, kind in kinds.items() if field in spec), VectorSpec)


def describe_space(space: spaces.Space[Any]) -> dict[str, Any]:
    """Describe an action space as JSON: its kind, and its sizes."""
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "sizes": [int(space.n)]}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "multi_discrete", "sizes": [int(n) for n in space.nvec]}
    kind = "multi_binary" if isinstance(space, spaces.MultiBinary) else "box"
    assert space.shape is not None
    return {"kind": kind, "sizes": list(space.shape)}


def parse_space(description: Mapping[str, Any]) -> spaces.Space[Any]:
    """Return the action space that `describe_space` described.

    Raises:
        ValueError: If it described none.
    """
    kind, sizes = description["kind"], description["sizes"]
    if not (sizes and all(type(n) is int and 0 < n <= MOST_CHOICES for n in sizes)):
        raise ValueError(f"actions have sizes {sizes!s:.40}")
    if kind == "discrete":
        return spaces.Discrete(sizes[0])
    if kind == "multi_discrete":
        return spaces.MultiDiscrete(sizes)
    if kind == "multi_binary":
        return spaces.MultiBinary(sizes[0])
    if kind == "box":
        return spaces.Box(-float("inf"), float("inf"), (sizes[0],))
    raise ValueError(f"unknown kind of actions {kind!r:.40}")
