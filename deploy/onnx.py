"""Exporting a policy as one ONNX file, and checking that ONNX Runtime computes what PyTorch does.

The file takes observations as the environment returns them: palette indices are looked up inside,
and what training normalises is normalised inside, vectors in float64 as in training. Everything
else is computed in float32. The metadata holds, as JSON under `doomgrad`, the environment, the
actions, the meaning of inputs and outputs, and the differences that the check found.

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

from agents.distributions import Gaussian
from agents.extras import import_extra
from agents.policy import Policy, PolicyOutput
from deploy.errors import DeployError
from perception import ImageSpec, SoundSpec, TextSpec
from perception.decode import Decoder
from perception.perception import VectorEncoder
from storage.files import write_atomically
from storage.onnx_file import (
    ACTIONS,
    FORMAT,
    METADATA_KEY,
    NEXT_STATE,
    STARTS,
    STATE,
    open_session,
)
from storage.policy_file import PolicyFile, describe_space

TOLERANCE = 1e-4
"""Largest difference between ONNX Runtime and PyTorch; above it, no file is written."""
BATCH_SIZES = (1, 2, 7)
"""Numbers of environments for which they are compared."""

_STEPS = 4  # Steps of a comparison; halfway through, some episodes start.


def save_onnx(path: Path, file: PolicyFile, *, env: Mapping[str, Any]) -> dict[str, float]:
    """Write a policy as ONNX, after checking that ONNX Runtime computes what PyTorch does.

    Args:
        path: the file to write.
        file: the policy.
        env: fields of the configuration of the environment that the policy is to act in.

    Returns:
        The largest difference in each output; see `differences`.

    Raises:
        DeployError: If they differ by more than `TOLERANCE`, if a part of the observation has the
            name of another input or output, or if the file cannot be written.
        MissingExtraError: If a package is not installed.
    """
    import_extra("onnxruntime", "export")  # Missing, it is named before the work is done.
    policy = in_float32(file.policy)
    model = translate(policy)
    found = differences(policy, open_session(model.SerializeToString()))
    for name, difference in found.items():
        if not difference <= TOLERANCE:  # Also true if the difference is NaN.
            raise DeployError(
                f"{name} of ONNX Runtime and PyTorch differ by {difference:.1e}; rounding explains "
                f"differences up to {TOLERANCE:.0e}, so no file was written"
            )
    write_model(path, model, file, env=env, parity=found, weights="float32")
    return found


def write_model(
    path: Path,
    model: Any,
    file: PolicyFile,
    *,
    env: Mapping[str, Any],
    parity: Mapping[str, float],
    weights: str,
) -> None:
    """Write a translated policy with its metadata.

    Args:
        path: the file to write.
        model: an `onnx.ModelProto`.
        file: the policy.
        env: fields of the configuration of the environment that the policy is to act in.
        parity: largest differences from PyTorch, by output.
        weights: type of the weights of its layers.

    Raises:
        DeployError: If the file cannot be written.
    """
    policy = file.policy
    description = {
        "format": FORMAT,
        "env": dict(env),
        "about": asdict(file.about),
        "perception": policy.config.as_dict(),
        "weights": weights,
        "specs": {name: asdict(spec) for name, spec in policy.specs.items()},
        "actions": describe_space(policy.action_space),
        "inputs": _inputs(policy),
        "outputs": _outputs(policy),
        "parity": dict(parity),
    }
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(description, separators=(",", ":")))
    try:
        write_atomically(path, model.SerializeToString())
    except OSError as error:
        raise DeployError(f"{path} cannot be written: {error.strerror}") from error


@torch.no_grad()
def differences(policy: Policy, session: Any) -> dict[str, float]:
    """Compare PyTorch with ONNX Runtime on random observations; each carries its own memory state.

    Args:
        policy: the policy for PyTorch, on the CPU.
        session: an `onnxruntime.InferenceSession` of an exported policy.

    Returns:
        The largest difference in each output, relative where PyTorch's number is greater than 1 in
        magnitude. For `greedy_actions` it is the difference in log-probability, by PyTorch's
        distribution, between PyTorch's most likely actions and those of ONNX Runtime, in nats.
    """
    rng = np.random.default_rng(0)
    found = dict.fromkeys(_outputs(policy), 0.0)
    for num_envs in BATCH_SIZES:
        state = policy.initial_state(num_envs)
        carried = state.transpose(0, 1).numpy()
        for step in range(_STEPS):
            obs = _draw(policy, num_envs, rng)
            starts = rng.random(num_envs) < 0.5 if step == _STEPS // 2 else np.full(num_envs, False)
            memory = {STATE: carried, STARTS: starts} if policy.is_recurrent else {}
            outputs = session.run(list(found), {**obs, **memory})
            computed = {n: torch.from_numpy(o) for n, o in zip(found, outputs, strict=True)}
            parts = {name: torch.from_numpy(part)[None] for name, part in obs.items()}
            output: PolicyOutput = policy(parts, state, torch.from_numpy(starts)[None])
            distribution, state = output.distribution, output.memory_state
            expected = _name(output)
            for name in found:
                error = (computed[name] - expected[name]).abs()
                difference = error / expected[name].abs().clamp(min=1.0)
                if name == ACTIONS:
                    best = distribution.log_prob(distribution.mode())
                    difference = best - distribution.log_prob(computed[name][None])
                found[name] = float(np.maximum(found[name], difference.max().item()))
            if policy.is_recurrent:
                carried = outputs[-1]
    return found


def in_float32(policy: Policy) -> Policy:
    """Return a copy of a policy, on the CPU, that computes in float32."""
    copied = Policy(policy.specs, policy.action_space, policy.config, policy.normalize_obs)
    copied.load_state_dict(policy.state_dict())
    return copied.eval()


class _Step(nn.Module):
    """One step of a policy; the first axis of all inputs and outputs is N."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._policy = copy.deepcopy(policy)
        for module in self._policy.modules():
            if isinstance(module, Decoder):
                # ONNX cannot read bytes as wider numbers.
                module.block, module.by_plane = 1, True

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs listed by `_outputs` from the inputs listed by `_inputs`."""
        policy, num_envs = self._policy, arrays[0].shape[0]
        inputs = dict(zip(_inputs(policy), arrays, strict=True))
        state, starts = policy.initial_state(0), torch.zeros(num_envs, dtype=torch.bool)
        if policy.is_recurrent:
            state, starts = inputs[STATE].transpose(0, 1), inputs[STARTS]
        obs = {name: inputs[name][None] for name in policy.specs}
        named = _name(policy(obs, state, starts[None]))
        return tuple(named[name] for name in _outputs(policy))


def _name(output: PolicyOutput) -> dict[str, Tensor]:
    """Return the output of a policy for a sequence of one step, under the names of `_outputs`."""
    distribution = output.distribution
    named = {
        ACTIONS: distribution.mode()[0],
        "probabilities": distribution.probabilities()[0],
        "values": output.values[0],
        NEXT_STATE: output.memory_state.transpose(0, 1),
    }
    if isinstance(distribution, Gaussian):
        named |= {"mean": distribution.mean[0], "log_std": distribution.log_std[0]}
    return named


def _inputs(policy: Policy) -> dict[str, str]:
    """Return a description of each input by name, in order."""
    inputs = {}
    for name, spec in policy.specs.items():
        if isinstance(spec, ImageSpec):
            channels = ", ".join(spec.channels) or "brightness"
            inputs[name] = f"{_axes(*spec.shape)} uint8, as the environment returns it: {channels}"
        else:
            dtype = "int32" if isinstance(spec, TextSpec) else "float32"
            inputs[name] = f"{_axes(*spec.shape)} {dtype}, as the environment returns it"
    if policy.is_recurrent:
        shape = _axes(*policy.perception.memory.state_shape)
        inputs[STATE] = f"{shape} float32, zeros at first, then the last {NEXT_STATE}"
        inputs[STARTS] = f"{_axes()} bool, where true, the memory is cleared before this step"
    return inputs


def _outputs(policy: Policy) -> dict[str, str]:
    """Return a description of each output by name, in order."""
    space, sizes = policy.action_space, policy.actor.sizes
    shape = _axes(*(space.shape or ()))
    if isinstance(space, spaces.Box):
        outputs = {
            ACTIONS: f"{shape} float32, the most likely actions",
            "mean": f"{shape} float32, means of the actions' normal distributions",
            "log_std": f"{shape} float32, natural logarithms of their standard deviations",
        }
    else:
        of = "being on" if isinstance(space, spaces.MultiBinary) else "each choice"
        groups = f", in groups of {', '.join(map(str, sizes))}" if len(sizes) > 1 else ""
        outputs = {
            ACTIONS: f"{shape} int64, the most likely actions",
            "probabilities": f"{_axes(sum(sizes))} float32, of {of}{groups}",
        }
    outputs["values"] = (
        f"{_axes()} float32, expected returns; multiply by value_unit for native reward"
    )
    if policy.is_recurrent:
        state = _axes(*policy.perception.memory.state_shape)
        outputs[NEXT_STATE] = f"{state} float32, the {STATE} of the next step"
    return outputs


def _axes(*sizes: int) -> str:
    return f"(N, {', '.join(map(str, sizes))})" if sizes else "(N,)"


@torch.no_grad()
def translate(policy: Policy) -> Any:
    """Translate a policy to an `onnx.ModelProto`, for any N.

    Raises:
        DeployError: If a part of the observation has the name of another input or output.
    """
    inputs, outputs = _inputs(policy), _outputs(policy)
    if taken := policy.specs.keys() & {*outputs, STATE, STARTS}:
        raise DeployError(
            f"observations have a part called {min(taken)}, which is the name of another input or "
            "output of the ONNX file; rename the part"
        )
    import_extra("onnxscript", "export")
    passes = import_extra("onnx_ir.passes.common", "export")
    num_envs = 3  # Any number but 1: the exporter treats an axis of length 1 as constant.
    example = draw_inputs(policy, num_envs, np.random.default_rng(0))
    arrays = tuple(torch.from_numpy(example[name]) for name in inputs)
    with _quiet_exporter():
        # Modules must read N from shapes: `len` would make a constant of it, which is refused here.
        any_number = (tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs),)
        traced = torch.export.export(
            _Step(policy).eval(), arrays, dynamic_shapes=any_number, strict=False
        )
        program = torch.onnx.export(
            traced,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(tuple({0: "N"} for _ in inputs),),
            verbose=False,
        )
    assert program is not None
    # Stack traces of this code contain folder names of this machine.
    passes.ClearMetadataAndDocStringPass()(program.model)
    return program.model_proto


def draw_inputs(policy: Policy, num_envs: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Draw the inputs of an exported policy: random observations at the start of episodes."""
    inputs = _draw(policy, num_envs, rng)
    if policy.is_recurrent:
        inputs[STATE] = policy.initial_state(num_envs).transpose(0, 1).numpy()
        inputs[STARTS] = np.full(num_envs, False)
    return inputs


def _draw(policy: Policy, num_envs: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Draw random observations, (N, ...) each.

    Vectors have the mean and the variance that training observed, if it normalised them.
    """
    obs: dict[str, NDArray[Any]] = {}
    for name, spec in policy.specs.items():
        if isinstance(spec, ImageSpec):
            obs[name] = rng.integers(256, size=(num_envs, *spec.shape), dtype=np.uint8)
            continue
        if isinstance(spec, TextSpec):
            tokens = rng.integers(spec.vocabulary, size=(num_envs, *spec.shape))
            obs[name] = tokens.astype(np.int32)
            continue
        if isinstance(spec, SoundSpec):
            sounds = rng.uniform(-1, 1, size=(num_envs, *spec.shape))
            obs[name] = sounds.astype(np.float32)
            continue
        vectors = rng.standard_normal((num_envs, spec.size))
        encoder = policy.perception.encoders[name]
        assert isinstance(encoder, VectorEncoder)
        if encoder.normalizer is not None:
            seen = encoder.normalizer
            vectors = vectors * seen.variance.sqrt().numpy() + seen.mean.numpy()
        obs[name] = vectors.astype(np.float32)
    return obs


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress warnings of PyTorch's exporter about its internals and about optional packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
