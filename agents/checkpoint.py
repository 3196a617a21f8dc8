"""What is in a policy file and in a checkpoint. Both are safetensors with JSON in their metadata.

`policy.safetensors` is all that is needed to play: weights, how they are arranged, and the world
they were trained in. A checkpoint is all that is needed to go on training. Nothing here unpickles,
a file is replaced only by a whole new one, and one that was changed since is known by its checksum.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec
import torch
from gymnasium import spaces
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from agents.agent import Agent
from agents.policy import Policy, Specs
from perception import ImageSpec, PerceptionConfig, VectorSpec
from perception.encoders import BlockConv2d

_FORMAT = 3
_METADATA_KEY, _CHECKSUM_KEY = "doomgrad", "sha256"
# Whether gradients had the layout of their parameters; checkpoints that do not say so are older.
_ALIGNED = "aligned_gradients"
# Bytes, more than any header of ours takes; what claims to have a larger one is not read.
_MAX_HEADER = 2**20
_MAX_BESIDE = 2**27  # Bytes of a checkpoint beside the policy and its optimiser: screens above all.
_TYPES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.uint8: "U8", torch.bool: "BOOL"},
}
_Kind = tuple[tuple[int, ...], str]
T = TypeVar("T")


class FileError(ValueError):
    """A file is not what it should be: its message is one line that says why."""


class DamagedError(FileError):
    """A file is not as it was written, or is not there."""


@dataclass(frozen=True, kw_only=True)
class About:
    """How a policy was trained.

    Attributes:
        agent: who learned.
        seed: of the training.
        env_steps: how long it was trained, over all environments.
        seconds: how long that took.
        gamma: by how much its critic discounts an env step; 0 if that is not known.
        value_unit: how much native reward its critic calls 1.

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
            raise ValueError(f"{self.env_steps} env steps in {self.seconds} s cannot be")


@dataclass(frozen=True, kw_only=True)
class PolicyFile:
    """What a policy file holds.

    Attributes:
        policy: ready to play.
        env: fields of the configuration of the world it was trained in.
        about: how it was trained.
    """

    policy: Policy
    env: dict[str, Any]
    about: About


def decode(kind: type[T], data: Any) -> T:
    """Turn parsed JSON into a dataclass, strictly: unknown keys and wrong types are refused.

    Raises:
        FileError: If the data does not fit.
    """
    _refuse_unknown_keys(kind, data)
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise FileError(str(error)) from None


def _refuse_unknown_keys(kind: Any, data: Any) -> None:
    if not (is_dataclass(kind) and isinstance(data, Mapping)):
        return
    types = get_type_hints(kind)
    known = {field.name for field in fields(kind)}
    for key, value in data.items():
        if key not in known:
            raise FileError(f"there is no field {key!r}")
        _refuse_unknown_keys(types[key], value)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by a whole new one: whoever reads it finds the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # Only now is the new name sure to outlive a loss of power.
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Replace a file by JSON, for people and programs."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def save_policy(path: Path, policy: Policy, *, env: Mapping[str, Any], about: About) -> None:
    """Write a policy file.

    Args:
        path: where.
        policy: what.
        env: fields of the world's configuration.
        about: how it was trained.
    """
    description = {
        "env": dict(env),
        "about": asdict(about),
        "perception": asdict(policy.config),
        "specs": {name: asdict(spec) for name, spec in policy.specs.items()},
        "actions": describe_space(policy.action_space),
        "normalize_obs": policy.normalize_obs,
    }
    write_atomically(path, _encode(policy.state_dict(), description))


def load_policy(path: Path) -> PolicyFile:
    """Read a policy file.

    Raises:
        FileError: If it is not one, is damaged, or its weights do not fit its description.
    """
    content = _Content(path)
    description = content.description
    try:
        specs: Specs = {
            name: decode(ImageSpec, spec) if "shape" in spec else decode(VectorSpec, spec)
            for name, spec in description["specs"].items()
        }
        if not specs:
            raise ValueError("it observes nothing")
        parts = (
            specs,
            _parse_space(description["actions"]),
            decode(PerceptionConfig, description["perception"]),
            bool(description["normalize_obs"]),
        )
        # First without memory: a file may describe a network of any size, and hold another.
        with torch.device("meta"):
            _expect_same_kinds(content.kinds, Policy(*parts).state_dict())
        env, about = dict(description["env"]), decode(About, description["about"])
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = _reason(error)
        raise FileError(f"{path} is not a policy of doomgrad: {reason}") from error
    tensors = content.tensors()
    policy = Policy(*parts)
    policy.load_state_dict(tensors)
    return PolicyFile(policy=policy.eval(), env=env, about=about)


def _expect_same_kinds(kinds: Mapping[str, _Kind], described: Mapping[str, Tensor]) -> None:
    if kinds.keys() != described.keys():
        name = min(kinds.keys() ^ described.keys())
        raise ValueError(f"{name} is {'missing' if name in described else 'not described'}")
    for name, kind in kinds.items():
        expected = (tuple(described[name].shape), _TYPES[described[name].dtype])
        if kind != expected:
            raise ValueError(f"{name} is {kind}, described as {expected}")


def save_training(
    path: Path,
    agent: Agent[Any],
    state: Mapping[str, Any],
    sampler_state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write all that going on needs: weights, optimiser, statistics, generators and counters.

    Args:
        path: where.
        agent: what learns.
        state: further counters, as JSON.
        sampler_state: what the sampler is in the midst of.
    """
    optimizer = agent.optimizer.state_dict()
    tensors = {f"policy/{name}": tensor for name, tensor in agent.policy.state_dict().items()}
    for name, tensor in agent.reward_scaler.state_dict().items():
        tensors[f"reward_scaler/{name}"] = tensor
    for parameter, values in optimizer["state"].items():
        for name, tensor in values.items():
            tensors[f"optimizer/{parameter}/{name}"] = tensor
    for name, tensor in (sampler_state or {}).items():
        tensors[f"sampler/{name}"] = tensor
    tensors["generator"] = torch.get_rng_state()
    counters = {
        "optimizer": type(agent.optimizer).__name__,
        "num_updates": agent.num_updates,
        _ALIGNED: True,
        "state": dict(state),
    }
    write_atomically(path, _encode(tensors, counters))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors that a person is to look at."""
    write_atomically(path, _encode(tensors, about))


def load_training(
    path: Path, agent: Agent[Any], say: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Put an agent back to where it was saved.

    Args:
        path: a file that `save_training` wrote.
        agent: a fresh agent of the same configuration.
        say: is told, in one line, what of the file is not used.

    Returns:
        The further counters, and the sampler's state; empty if none was saved.

    Raises:
        DamagedError: If the file is not what was written.
        FileError: If it belongs to another configuration.
    """
    content = _Content(path)
    largest = _MAX_BESIDE + 8 * sum(t.nbytes for t in agent.policy.state_dict().values())
    if path.stat().st_size > largest:
        raise DamagedError(f"{path} is too large to be a checkpoint of this agent")
    tensors, counters = content.tensors(), content.description
    try:
        agent.policy.load_state_dict(_under("policy/", tensors))
        agent.reward_scaler.load_state_dict(_under("reward_scaler/", tensors))
        if counters["optimizer"] != type(agent.optimizer).__name__:
            raise ValueError(f"its optimiser is {counters['optimizer']}")
        optimizer = agent.optimizer.state_dict()
        parameters = [p for group in agent.optimizer.param_groups for p in group["params"]]
        optimizer["state"] = {}
        for name, tensor in _under("optimizer/", tensors).items():
            index, _, key = name.partition("/")
            parameter = parameters[int(index)]
            if tensor.shape == parameter.shape:
                # Arranged in memory as the weights are, which fused optimisers take for granted.
                tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
            optimizer["state"].setdefault(int(index), {})[key] = tensor
        agent.optimizer.load_state_dict(optimizer)
        if not counters.get(_ALIGNED) and (names := _reset_scrambled(agent)):
            say(
                f"{path} is of a time when gradients of {', '.join(names)} were applied to the "
                "wrong pixels: the optimiser's statistics of it start anew"
            )
        torch.set_rng_state(tensors["generator"])
        agent.num_updates = counters["num_updates"]
        return dict(counters["state"]), _under("sampler/", tensors)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = _reason(error)
        raise FileError(
            f"{path} belongs to another configuration ({reason}); use --fresh to start over"
        ) from error


def _reset_scrambled(agent: Agent[Any]) -> list[str]:
    """Reset Adam's statistics of weights whose gradients lay otherwise in memory than they did.

    Returns:
        The names of the weights.
    """
    reset: list[str] = []
    if not agent.optimizer.defaults.get("fused"):
        return reset
    for name, module in agent.policy.named_modules():
        if not isinstance(module, BlockConv2d) or module.weight.is_contiguous():
            continue
        state = agent.optimizer.state.get(module.weight, {})
        if "exp_avg" in state:
            for statistic in state.values():
                statistic.zero_()
            reset.append(f"{name}.weight")
    return reset


def _reason(error: Exception) -> str:
    """Reduce an error to one line; PyTorch puts what is wrong below a heading."""
    return str(error).splitlines()[-1].strip()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _encode(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> bytes:
    # Copied, because what counts as contiguous may have odd strides where it has one element.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    text = json.dumps({"format": _FORMAT, **description})
    return save(plain, {_METADATA_KEY: text, _CHECKSUM_KEY: _checksum(plain, text)})


def _checksum(tensors: Mapping[str, Tensor], description: str) -> str:
    """Give the SHA-256 of a description and of every tensor with its name, shape and dtype."""
    digest = hashlib.sha256(description.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _Content:
    """A file that `_encode` made, if it is one; nothing is taken for granted about it.

    Attributes:
        description: what it says of its tensors.
        kinds: shape and type of each tensor, as its header has it.

    Raises:
        DamagedError: If it is no safetensors file.
        FileError: If it is none of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        beginning = b""
        try:
            with path.open("rb") as file:
                beginning = file.read(8)
            if int.from_bytes(beginning, "little") > _MAX_HEADER:
                raise SafetensorError("its header is too large")
            # The sizes that a header claims are checked against the file's own.
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                self.kinds: dict[str, _Kind] = {
                    name: (tuple(part.get_shape()), part.get_dtype())
                    for name, part in slices.items()
                }
            self._text, self._checksum = metadata[_METADATA_KEY], metadata.get(_CHECKSUM_KEY)
            self.description: dict[str, Any] = json.loads(self._text)
            found = self.description["format"]
        except FileNotFoundError:
            raise DamagedError(f"there is no file at {path}") from None
        except (SafetensorError, OSError) as error:
            reason = str(error).splitlines()[0]
            if beginning.startswith((b"PK", b"\x80")):
                reason = "it may hold pickled code, as SB3 and PyTorch write it, which is not run"
            raise DamagedError(f"{path} is damaged, or no safetensors file: {reason}") from error
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise FileError(
                f"{path} was not written by doomgrad: it lacks its description"
            ) from error
        if found != _FORMAT:
            raise FileError(f"{path} is of format {found}; this program reads {_FORMAT}")

    def tensors(self) -> dict[str, Tensor]:
        """Read every tensor.

        Raises:
            DamagedError: If they are not what was written.
        """
        with safe_open(self._path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in self.kinds}
        if self._checksum != _checksum(tensors, self._text):
            raise DamagedError(
                f"{self._path} is damaged: its content is not what its checksum says"
            )
        return tensors


def describe_space(space: spaces.Space[Any]) -> dict[str, Any]:
    """Describe an action space as JSON: its kind, and its sizes."""
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "sizes": [int(space.n)]}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "multi_discrete", "sizes": [int(n) for n in space.nvec]}
    kind = "multi_binary" if isinstance(space, spaces.MultiBinary) else "box"
    assert space.shape is not None
    return {"kind": kind, "sizes": list(space.shape)}


def _parse_space(description: Mapping[str, Any]) -> spaces.Space[Any]:
    kind, sizes = description["kind"], [int(n) for n in description["sizes"]]
    if kind == "discrete":
        return spaces.Discrete(sizes[0])
    if kind == "multi_discrete":
        return spaces.MultiDiscrete(sizes)
    if kind == "multi_binary":
        return spaces.MultiBinary(sizes[0])
    if kind == "box":
        return spaces.Box(-float("inf"), float("inf"), (sizes[0],))
    raise ValueError(f"unknown kind of actions {kind!r}")
