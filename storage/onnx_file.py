"""Policies as ONNX files, played through ONNX Runtime; `deploy.onnx` writes them.

Such a file may come from a stranger. Its size, its metadata and its inputs and outputs are checked
before it is run, nothing outside of it is read, and ONNX Runtime may use 2 GiB of memory.

Axes: N environments, A choices of all groups, S and M rows and width of the memory's state.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from agents.distributions import ActionHead, Distribution, Gaussian
from agents.extras import import_extra
from agents.policy import Decision, Obs, Specs
from perception import ImageSpec, TextSpec
from storage.files import FileError, decode, read_regular
from storage.limits import MOST_OBSERVED, MOST_WEIGHTS
from storage.policy_file import About, PolicyFile, parse_space, parse_specs
from storage.tensor_file import one_line

FORMAT = 2
"""Version of the inputs, the outputs and the metadata."""
METADATA_KEY = "doomgrad"
ACTIONS, STATE, STARTS = "greedy_actions", "memory_state", "episode_starts"
NEXT_STATE = "next_memory_state"  # Inputs and outputs may not share a name.
SUFFIX = ".onnx"

_MOST_BYTES = 4 * MOST_WEIGHTS + 2**24
_MOST_MEMORY = 2**31  # Bytes that ONNX Runtime may use in this process.
_KINDS: dict[type[Any], Any] = {ImageSpec: np.uint8, TextSpec: np.int32}  # Others are float32.
_TYPES = {
    np.uint8: "tensor(uint8)",
    np.int32: "tensor(int32)",
    np.float32: "tensor(float)",
    np.bool_: "tensor(bool)",
}
_SMALLEST = 1e-30  # A probability of 0 has no logarithm.


class OnnxPolicy:
    """A policy that ONNX Runtime computes, on one thread of the CPU. It is a `Player`.

    Args:
        session: an `onnxruntime.InferenceSession`.
        specs: parts of an observation by name.
        action_space: the actions.
        path: the file, for messages.

    Attributes:
        specs: as above.
        action_space: as above.
        state_shape: (S, M); (0, 0) without memory.

    Raises:
        ValueError: If inputs or outputs of the session are not those of such a policy.
    """

    def __init__(
        self, session: Any, specs: Specs, action_space: spaces.Space[Any], path: Path
    ) -> None:
        self.specs, self.action_space = specs, action_space
        self._session, self._path = session, path
        # On the meta device, because only its function from numbers to distributions is needed.
        with torch.device("meta"):
            self._head = ActionHead(action_space, 1)
        inputs = {part.name: part for part in session.get_inputs()}
        self.state_shape = _state_shape(inputs)
        _check_inputs(inputs, specs, self.state_shape)
        is_box = isinstance(action_space, spaces.Box)
        self._outputs = [*(("mean", "log_std") if is_box else ("probabilities",)), "values"]
        self._outputs += [NEXT_STATE] if self.is_recurrent else []
        names = {part.name for part in session.get_outputs()}
        if missing := {*self._outputs, ACTIONS} - names:
            raise ValueError(f"it has no output {min(missing)}")

    @property
    def is_recurrent(self) -> bool:
        """Whether there is a memory."""
        return self.state_shape[0] > 0

    def initial_state(self, num_envs: int) -> Tensor:
        """Return the memory's state at the start of episodes, (S, N, M) float32."""
        rows, size = self.state_shape
        return torch.zeros(rows, num_envs, size)

    def act(
        self, obs: Obs, memory_state: Tensor, episode_starts: Tensor, draws: Tensor | None
    ) -> Decision:
        """Choose actions for one step; see `agents.Policy.act`.

        Raises:
            FileError: If the file cannot be run.
        """
        arrays = {name: obs[name].numpy() for name in self.specs}
        if self.is_recurrent:
            arrays[STATE] = np.ascontiguousarray(memory_state.transpose(0, 1).numpy())
            arrays[STARTS] = episode_starts.numpy()
        outputs = self._run(arrays, len(episode_starts))
        distribution = self._distribution(outputs)
        actions = distribution.mode() if draws is None else distribution.sample(draws)
        state = outputs[NEXT_STATE].transpose(0, 1) if self.is_recurrent else memory_state
        return Decision(
            actions=actions,
            logprobs=distribution.log_prob(actions),
            values=outputs["values"],
            probabilities=distribution.probabilities(),
            memory_state=state,
        )

    def _run(self, arrays: Mapping[str, NDArray[Any]], num_envs: int) -> dict[str, Tensor]:
        try:
            arrays_out = self._session.run(self._outputs, dict(arrays))
        except Exception as error:  # The errors of ONNX Runtime have no common base class.
            raise FileError(f"{self._path} cannot be run: {one_line(error)!a}") from error
        outputs = dict(zip(self._outputs, map(torch.from_numpy, arrays_out), strict=True))
        choices = sum(self._head.sizes)
        shapes = {
            "values": (num_envs,),
            NEXT_STATE: (num_envs, *self.state_shape),
            **dict.fromkeys(("probabilities", "mean", "log_std"), (num_envs, choices)),
        }
        for name, output in outputs.items():
            if tuple(output.shape) != shapes[name] or output.dtype != torch.float32:
                raise FileError(
                    f"{self._path}: {name} is {tuple(output.shape)} {output.dtype}, "
                    f"not {shapes[name]} float32"
                )
        return outputs

    def _distribution(self, outputs: Mapping[str, Tensor]) -> Distribution:
        if "mean" in outputs:
            return Gaussian(outputs["mean"], outputs["log_std"])
        probabilities = outputs["probabilities"].clamp(_SMALLEST, 1.0)
        if isinstance(self.action_space, spaces.MultiBinary):
            return self._head.distribution(probabilities.logit())
        return self._head.distribution(probabilities.log())


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """The content of an ONNX file of a policy.

    Attributes:
        policy: ready to act.
        env: fields of the configuration of the environment that it acts in.
        about: how the policy was trained.
        network: the configuration of its encoders and memory, and the type of its weights.
        imports: none; a file contains all that it computes.
    """

    policy: OnnxPolicy
    env: dict[str, Any]
    about: About
    network: str
    imports: tuple[str, ...] = ()


PlayableFile = PolicyFile | OnnxFile
"""A file whose policy can be played."""


def load_onnx(path: Path) -> OnnxFile:
    """Read an ONNX file that `deploy.onnx` or `deploy.int8` wrote, if it is one.

    Raises:
        FileError: If it is not, or is damaged.
        MissingExtraError: If ONNX Runtime is not installed.
    """
    onnx = import_extra("onnx", "export")
    import_extra("onnxruntime", "export")
    content = read_regular(path, _MOST_BYTES)
    try:
        model = onnx.load_model_from_string(content)
        tensors = (tensor for graph in _graphs(model.graph) for tensor in _tensors(graph))
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
            raise ValueError("it refers to other files")
        properties = {entry.key: entry.value for entry in model.metadata_props}
        description = json.loads(properties[METADATA_KEY])
        if description["format"] != FORMAT:
            raise ValueError(
                f"it is of format {description['format']!s:.20}; this program reads {FORMAT}: "
                "export the policy again"
            )
        policy = OnnxPolicy(
            open_session(content),
            parse_specs(description["specs"]),
            parse_space(description["actions"]),
            path,
        )
        return OnnxFile(
            policy=policy,
            env=dict(description["env"]),
            about=decode(About, description["about"]),
            network=json.dumps([description["perception"], description["weights"]]),
        )
    except Exception as error:  # The errors of ONNX Runtime have no common base class.
        reason = one_line(error)
        raise FileError(
            f"{path} is not a policy that evaluate.py exported: {reason!a:.300}"
        ) from error


def open_session(content: bytes) -> Any:
    """Return an `onnxruntime.InferenceSession` of a model.

    It computes on one thread, prints nothing, and its memory is bounded.
    """
    runtime = import_extra("onnxruntime", "export")
    _bound_memory()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.use_env_allocators", "1")
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@functools.cache
def _bound_memory() -> None:
    """Register an allocator with a limit, once in a process."""
    runtime = import_extra("onnxruntime", "export")
    kind = runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    info = runtime.OrtMemoryInfo("Cpu", kind, 0, runtime.OrtMemType.DEFAULT)
    # The arena grows by what is requested, not by doubling.
    arena = runtime.OrtArenaCfg({"max_mem": _MOST_MEMORY, "arena_extend_strategy": 1})
    runtime.create_and_register_allocator(info, arena)


def _graphs(graph: Any) -> list[Any]:
    """Return a graph and those inside its nodes."""
    inner = [
        each
        for node in graph.node
        for attribute in node.attribute
        for each in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else []))
    ]
    return [graph, *(found for each in inner for found in _graphs(each))]


def _tensors(graph: Any) -> list[Any]:
    """Return the tensors that a graph contains."""
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    inside = [tensor for a in attributes for tensor in (*a.tensors, a.t)]
    return [*graph.initializer, *inside]


def _state_shape(inputs: Mapping[str, Any]) -> tuple[int, int]:
    """Return (S, M) of the memory's state that a session takes.

    Raises:
        ValueError: If it is none, or is too large.
    """
    if STATE not in inputs:
        return 0, 0
    shape = inputs[STATE].shape[1:]
    if len(shape) != 2 or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"{STATE} has the shape {shape!s:.60}")
    if math.prod(shape) > MOST_OBSERVED:
        raise ValueError(f"{STATE} has {math.prod(shape):,} numbers; at most {MOST_OBSERVED:,}")
    return shape[0], shape[1]


def _check_inputs(inputs: Mapping[str, Any], specs: Specs, state_shape: tuple[int, int]) -> None:
    """Check that the inputs of a session are observations and, if there is one, a memory's state.

    Raises:
        ValueError: If they are not.
    """
    expected: dict[str, tuple[tuple[int, ...], Any]] = {
        name: (tuple(spec.shape), _KINDS.get(type(spec), np.float32))
        for name, spec in specs.items()
    }
    if state_shape[0]:
        expected |= {STATE: (state_shape, np.float32), STARTS: ((), np.bool_)}
    if inputs.keys() != expected.keys():
        raise ValueError(f"its inputs are {', '.join(inputs):.100}")
    for name, (shape, kind) in expected.items():
        number, *sizes = inputs[name].shape
        if isinstance(number, int) or tuple(sizes) != shape or inputs[name].type != _TYPES[kind]:
            raise ValueError(f"its input {name} is {inputs[name].shape!s:.60} {inputs[name].type}")
