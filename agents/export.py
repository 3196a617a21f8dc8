"""A policy as one ONNX file, which plays without PyTorch, and the check that it plays the same.

The file takes what a world shows, as the world shows it: palette indices are looked up inside, and
what is normalised in training is normalised, vectors in float64 as there. All else is computed in
float32. Its metadata has, as JSON under `doomgrad`, the world it plays, its actions, what its
inputs and outputs mean, and what the check found.

Axes: N environments, S and M rows and width of the memory's state, A choices of all groups.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.checkpoint import PolicyFile, describe_space, write_atomically
from agents.commandline import UsageError, import_extra
from agents.distributions import Distribution, Gaussian
from agents.policy import Policy
from perception import ImageSpec
from perception.decode import Decoder

TOLERANCE = 1e-4
"""How much ONNX Runtime may differ from PyTorch; what differs more is not written."""
BATCH_SIZES = (1, 2, 7)
"""How many environments at a time they are compared with."""

_FORMAT = 1  # Of inputs, outputs and metadata.
_METADATA_KEY = "doomgrad"
_STEPS = 4  # Of a comparison; halfway through, episodes start.
_ACTIONS, _STATE, _STARTS = "greedy_actions", "memory_state", "episode_starts"
_NEXT_STATE = "next_memory_state"  # Inputs and outputs may not share a name.


def save_onnx(path: Path, file: PolicyFile, *, env: Mapping[str, Any]) -> dict[str, float]:
    """Write a policy as ONNX, after ONNX Runtime has computed with it what PyTorch computes.

    Args:
        path: where.
        file: what.
        env: fields of the configuration of the world that it is to play.

    Returns:
        The largest difference in each output; see `differences`.

    Raises:
        UsageError: If they differ by more than `TOLERANCE`, a name is not free, a package is
            missing, or the file cannot be written.
    """
    policy = copy.deepcopy(file.policy).eval()
    policy.perception.precision = torch.float32
    runtime = import_extra("onnxruntime", "export")
    model = _translate(policy)
    content = model.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = differences(policy, session)
    for name, difference in found.items():
        if not difference <= TOLERANCE:  # NaN is not.
            raise UsageError(
                f"{name} of ONNX Runtime and PyTorch differ by {difference:.1e}, which is more "
                f"than rounding ({TOLERANCE:.0e}); nothing was written"
            )
    description = {
        "format": _FORMAT,
        "env": dict(env),
        "about": asdict(file.about),
        "actions": describe_space(policy.action_space),
        "inputs": _inputs(policy),
        "outputs": _outputs(policy),
        "parity": found,
    }
    model.metadata_props.add(key=_METADATA_KEY, value=json.dumps(description))
    try:
        write_atomically(path, model.SerializeToString())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    return found


@torch.no_grad()
def differences(policy: Policy, session: Any) -> dict[str, float]:
    """Let PyTorch and ONNX Runtime judge random observations, each with a memory of its own.

    Args:
        policy: what PyTorch computes, on the CPU.
        session: an `onnxruntime.InferenceSession` of an exported policy.

    Returns:
        For each output the largest difference of a number, which is relative where PyTorch's number
        is beyond +-1. For `greedy_actions`, how much less likely than its own PyTorch calls them,
        in nats.
    """
    rng = np.random.default_rng(0)
    found = dict.fromkeys(_outputs(policy), 0.0)
    for num_envs in BATCH_SIZES:
        state = policy.initial_state(num_envs)
        carried = state.transpose(0, 1).numpy()
        for step in range(_STEPS):
            obs = _draw(policy, num_envs, rng)
            starts = rng.random(num_envs) < 0.5 if step == _STEPS // 2 else np.full(num_envs, False)
            memory = {_STATE: carried, _STARTS: starts} if policy.is_recurrent else {}
            outputs = session.run(list(found), {**obs, **memory})
            theirs = {n: torch.from_numpy(o) for n, o in zip(found, outputs, strict=True)}
            parts = {name: torch.from_numpy(part)[None] for name, part in obs.items()}
            distribution, values, state = policy(parts, state, torch.from_numpy(starts)[None])
            ours = _name(distribution, values, state)
            for name in found:
                difference = (theirs[name] - ours[name]).abs() / ours[name].abs().clamp(min=1.0)
                if name == _ACTIONS:
                    best = distribution.log_prob(distribution.mode())
                    difference = best - distribution.log_prob(theirs[name][None])
                found[name] = float(np.maximum(found[name], difference.max().item()))
            if policy.is_recurrent:
                carried = outputs[-1]
    return found


class _Step(nn.Module):
    """One step of a policy, from arrays to arrays that all have N first."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._policy = copy.deepcopy(policy)
        for module in self._policy.modules():
            if isinstance(module, Decoder):
                module.block = 1  # ONNX cannot read bytes as wider numbers.

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """Map what `_inputs` describes to what `_outputs` describes."""
        policy, num_envs = self._policy, arrays[0].shape[0]
        inputs = dict(zip(_inputs(policy), arrays, strict=True))
        state, starts = policy.initial_state(0), torch.zeros(num_envs, dtype=torch.bool)
        if policy.is_recurrent:
            state, starts = inputs[_STATE].transpose(0, 1), inputs[_STARTS]
        obs = {name: inputs[name][None] for name in policy.specs}
        named = _name(*policy(obs, state, starts[None]))
        return tuple(named[name] for name in _outputs(policy))


def _name(distribution: Distribution, values: Tensor, state: Tensor) -> dict[str, Tensor]:
    """Name what a policy gives for a sequence of one step, as `_outputs` does."""
    named = {
        _ACTIONS: distribution.mode()[0],
        "probabilities": distribution.probabilities()[0],
        "values": values[0],
        _NEXT_STATE: state.transpose(0, 1),
    }
    if isinstance(distribution, Gaussian):
        named |= {"mean": distribution.mean[0], "log_std": distribution.log_std[0]}
    return named


def _inputs(policy: Policy) -> dict[str, str]:
    """Say what goes in, in order."""
    inputs = {}
    for name, spec in policy.specs.items():
        if isinstance(spec, ImageSpec):
            channels = ", ".join(spec.channels) or "brightness"
            inputs[name] = f"{_axes(*spec.shape)} uint8, as the world shows it: {channels}"
        else:
            inputs[name] = f"{_axes(spec.size)} float32, as the world shows it"
    if policy.is_recurrent:
        shape = _axes(*policy.perception.memory.state_shape)
        inputs[_STATE] = f"{shape} float32, zeros at first, then {_NEXT_STATE}"
        inputs[_STARTS] = f"{_axes()} bool, where true, memory is cleared before this step"
    return inputs


def _outputs(policy: Policy) -> dict[str, str]:
    """Say what comes out, in order."""
    space, sizes = policy.action_space, policy.actor.sizes
    shape = _axes(*(space.shape or ()))
    if isinstance(space, spaces.Box):
        outputs = {
            _ACTIONS: f"{shape} float32, the most likely actions",
            "mean": f"{shape} float32, of the normal distributions of actions",
            "log_std": f"{shape} float32, natural logarithms of their deviations",
        }
    else:
        of = "being on" if isinstance(space, spaces.MultiBinary) else "each choice"
        groups = f", in groups of {', '.join(map(str, sizes))}" if len(sizes) > 1 else ""
        outputs = {
            _ACTIONS: f"{shape} int64, the most likely actions",
            "probabilities": f"{_axes(sum(sizes))} float32, of {of}{groups}",
        }
    outputs["values"] = f"{_axes()} float32, expected returns; times value_unit: in native reward"
    if policy.is_recurrent:
        state = _axes(*policy.perception.memory.state_shape)
        outputs[_NEXT_STATE] = f"{state} float32, the next step's {_STATE}"
    return outputs


def _axes(*sizes: int) -> str:
    return f"(N, {', '.join(map(str, sizes))})" if sizes else "(N,)"


@torch.no_grad()
def _translate(policy: Policy) -> Any:
    """Translate a policy to an `onnx.ModelProto`, for any N.

    Raises:
        UsageError: If a part of the observation is called as another input or output.
    """
    inputs, outputs = _inputs(policy), _outputs(policy)
    if taken := policy.specs.keys() & {*outputs, _STATE, _STARTS}:
        raise UsageError(
            f"observations have a part called {min(taken)}, which in ONNX is something else"
        )
    import_extra("onnxscript", "export")
    passes = import_extra("onnx_ir.passes.common", "export")
    num_envs = 3  # Any number, but an axis of 1 would be fixed.
    example = _draw(policy, num_envs, np.random.default_rng(0))
    if policy.is_recurrent:
        example[_STATE] = policy.initial_state(num_envs).transpose(0, 1).numpy()
        example[_STARTS] = np.full(num_envs, False)
    with _quiet_exporter():
        program = torch.onnx.export(
            _Step(policy).eval(),
            tuple(torch.from_numpy(example[name]) for name in inputs),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(tuple({0: "N"} for _ in inputs),),
            verbose=False,
        )
    assert program is not None
    # Traces of this code, which name folders of this machine.
    passes.ClearMetadataAndDocStringPass()(program.model)
    return program.model_proto


def _draw(policy: Policy, num_envs: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Draw observations, (N, ...) each; vectors are distributed as their normaliser has seen."""
    obs: dict[str, NDArray[Any]] = {}
    for name, spec in policy.specs.items():
        if isinstance(spec, ImageSpec):
            obs[name] = rng.integers(256, size=(num_envs, *spec.shape), dtype=np.uint8)
            continue
        vectors = rng.standard_normal((num_envs, spec.size))
        if policy.normalize_obs:
            seen = policy.perception.normalizers[name].state_dict()
            vectors = vectors * seen["variance"].sqrt().numpy() + seen["mean"].numpy()
        obs[name] = vectors.astype(np.float32)
    return obs


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep back what PyTorch's exporter says of its own parts, and of packages nobody needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
