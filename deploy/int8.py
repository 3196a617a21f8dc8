"""Quantising a policy to 8 bits: static, per channel, computed by ONNX Runtime.

Weights of convolutions and linear layers become int8, with one scale for each output channel; what
they compute from becomes uint8, with one scale and zero point for each tensor, whose range is that
of the calibration data (Krishnamoorthi 2018, sections 2 and 3.1). The heads for actions and values,
which take little time, and all else stay float32. The file has the form of `deploy.onnx`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from agents.distributions import num_draws
from agents.extras import import_extra
from agents.policy import Policy
from deploy.errors import DeployError
from deploy.onnx import in_float32, translate, write_model
from storage.onnx_file import ACTIONS, open_session
from storage.policy_file import PolicyFile

Inputs = Mapping[str, NDArray[Any]]
"""The inputs of an exported policy for a batch of N observations, by name."""

LARGEST_CHANGE = 0.1
"""Above this share of changed decisions, or this change of a mean action, no file is written."""
WEIGHTS = "int8"
"""The type of the weights, in the file's metadata."""

_LAYERS = ("Conv", "Gemm", "MatMul")


def save_int8(
    path: Path, file: PolicyFile, batches: Sequence[Inputs], *, env: Mapping[str, Any]
) -> dict[str, float]:
    """Write a policy as ONNX with 8-bit weights.

    Args:
        path: the file to write.
        file: the policy.
        batches: at least two batches of observations and memory states that it sees when it acts.
            Ranges are calibrated on every other one, and changes measured on the rest.
        env: fields of the configuration of the environment that the policy is to act in.

    Returns:
        For `greedy_actions` the share that changed, and for every other output the mean absolute
        change against float32.

    Raises:
        DeployError: If nothing can be quantised, if the policy changes by more than
            `LARGEST_CHANGE`, or if the file cannot be written.
        MissingExtraError: If a package is not installed.
    """
    policy = in_float32(file.policy)
    original = translate(policy)
    model = quantize(original, policy, batches[::2])
    found = changes(original, model, batches[1::2])
    if "probabilities" in found:
        change = changed_decisions(found["probabilities"], policy)
        what, most = f"{change:.0%} of decisions", f"{LARGEST_CHANGE:.0%}"
    else:
        change = found["mean"]
        what, most = f"mean actions by {change:.2g}", f"{LARGEST_CHANGE}"
    if not change <= LARGEST_CHANGE:  # Also true if the change is NaN.
        raise DeployError(
            f"8 bits change {what}; at most {most} is acceptable, so no file was written: "
            "calibrate on more episodes"
        )
    write_model(path, model, file, env=env, parity=found, weights=WEIGHTS)
    return found


def quantize(model: Any, policy: Policy, batches: Sequence[Inputs]) -> Any:
    """Return a translated policy with 8-bit weights, an `onnx.ModelProto`.

    Args:
        model: the translated policy; it is not changed.
        policy: the policy.
        batches: what ranges are calibrated on.

    Raises:
        DeployError: If it has no layer that can be quantised.
    """
    onnx = import_extra("onnx", "export")
    quantization = import_extra("onnxruntime.quantization", "export")
    preparation = import_extra("onnxruntime.quantization.shape_inference", "export")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # ONNX Runtime's advice to do what is done here.
    try:
        with tempfile.TemporaryDirectory() as folder:
            # Files, because both functions would move the weights out of a model in memory.
            before, prepared, after = (str(Path(folder, f"{n}.onnx")) for n in range(3))
            onnx.save(model, before)
            preparation.quant_pre_process(before, prepared, skip_symbolic_shape=True)
            layers = _layers(onnx.load(prepared), policy)
            if not layers:
                raise DeployError(
                    "the policy has no convolution or linear layer before its heads that could be "
                    "quantised; export it in float32"
                )
            quantization.quantize_static(
                prepared,
                after,
                _Reader(batches),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_quantize=layers,
            )
            smaller = onnx.load(after)
            smaller.graph.ClearField("value_info")  # Shapes that are computed again when opened.
            return smaller
    finally:
        root.setLevel(level)


def changes(original: Any, quantized: Any, batches: Sequence[Inputs]) -> dict[str, float]:
    """Return how much outputs differ between two models, see `save_int8`."""
    ours, theirs = (open_session(model.SerializeToString()) for model in (quantized, original))
    names = [part.name for part in ours.get_outputs()]
    found: dict[str, list[float]] = {name: [] for name in names}
    for batch in batches:
        for name, one, other in zip(
            names, ours.run(names, dict(batch)), theirs.run(names, dict(batch)), strict=True
        ):
            change = one != other if name == ACTIONS else np.abs(one - other)
            found[name].append(float(np.mean(change)))
    return {name: float(np.mean(each)) for name, each in found.items()}


def changed_decisions(change: float, policy: Policy) -> float:
    """Return the total variation distance: the least share of decisions that must change.

    Args:
        change: the mean change of a probability.
        policy: the policy. Its actions may consist of several decisions.
    """
    choices, decisions = policy.actor.num_choices, num_draws(policy.action_space)
    # Of a switch, there is the probability of being on; of choices, there are all probabilities.
    is_switch = isinstance(policy.action_space, spaces.MultiBinary)
    return change if is_switch else change * choices / decisions / 2


class _Reader:
    """Hands batches over to ONNX Runtime's calibration."""

    def __init__(self, batches: Sequence[Inputs]) -> None:
        self._batches: Iterator[Inputs] = iter(batches)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch; None after the last one."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def _layers(model: Any, policy: Policy) -> list[str]:
    """Return the names of the nodes to quantise: those that multiply with weights, but heads."""
    read = import_extra("onnx.numpy_helper", "export").to_array
    weights = {tensor.name: read(tensor) for tensor in model.graph.initializer}
    parameters = dict(policy.named_parameters())
    heads = [parameters[f"{head}.weight"].detach().numpy() for head in ("actor.layer", "critic")]
    # The exporter renames what it transposes.
    heads += [head.T for head in heads]
    return [
        node.name
        for node in model.graph.node
        if node.op_type in _LAYERS
        and (weight := weights.get(node.input[1])) is not None
        and not any(np.array_equal(weight, head) for head in heads)
    ]
