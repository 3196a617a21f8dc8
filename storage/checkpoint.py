"""Checkpoints: everything that is needed to resume a training run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.agent import Agent
from perception.encoders import BlockConv2d
from storage.files import DamagedError, FileError
from storage.tensor_file import FORMAT, TensorFile, one_line, write_tensors
from storage.upgrade import upgraded_tensor_name

# Whether gradients had the memory layout of their parameters; older checkpoints do not say so.
_ALIGNED = "aligned_gradients"
# Bytes of a checkpoint beside the policy and its optimiser: mostly the current observations.
_MAX_BESIDE = 2**27


def save_training(
    path: Path,
    agent: Agent[Any],
    state: Mapping[str, Any],
    collector_state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write everything that is needed to resume a training run.

    That is weights, optimiser, statistics, random generators and counters.

    Args:
        path: the file.
        agent: the agent.
        state: further counters, as JSON.
        collector_state: what `Collector.state` returned; None or empty if there is none.
    """
    optimizer = agent.optimizer.state_dict()
    tensors = {f"policy/{name}": tensor for name, tensor in agent.policy.state_dict().items()}
    for objective, module in agent.objectives.items():
        for name, tensor in module.state_dict().items():
            tensors[f"objectives/{objective}/{name}"] = tensor
    for name, tensor in agent.reward_scaler.state_dict().items():
        tensors[f"reward_scaler/{name}"] = tensor
    for parameter, values in optimizer["state"].items():
        for name, tensor in values.items():
            tensors[f"optimizer/{parameter}/{name}"] = tensor
    for name, tensor in (collector_state or {}).items():
        tensors[f"sampler/{name}"] = tensor
    tensors["generator"] = torch.get_rng_state()
    counters = {
        "optimizer": type(agent.optimizer).__name__,
        "num_updates": agent.num_updates,
        _ALIGNED: True,
        "state": dict(state),
    }
    write_tensors(path, tensors, counters)


def load_training(
    path: Path, agent: Agent[Any], say: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Restore an agent from a checkpoint.

    Args:
        path: a file that `save_training` wrote.
        agent: a new agent with the same configuration.
        say: is called with one line about what in the file is not used.

    Returns:
        The further counters, and the collector's state, empty if none was saved.

    Raises:
        DamagedError: If the file is not what was written.
        FileError: If it belongs to another configuration.
    """
    content = TensorFile(path)
    modules = [agent.policy, *agent.objectives.values()]
    sizes = [tensor.nbytes for module in modules for tensor in module.state_dict().values()]
    largest = _MAX_BESIDE + 8 * sum(sizes)
    if path.stat().st_size > largest:
        raise DamagedError(f"{path} is too large to be a checkpoint of this agent")
    tensors, counters = content.tensors(), content.description
    try:
        weights = _under("policy/", tensors)
        if counters["format"] < FORMAT:
            weights = {upgraded_tensor_name(name): tensor for name, tensor in weights.items()}
        agent.policy.load_state_dict(weights)
        for objective, module in agent.objectives.items():
            module.load_state_dict(_under(f"objectives/{objective}/", tensors))
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
                # In the memory layout of the parameter, which fused optimisers assume.
                tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
            optimizer["state"].setdefault(int(index), {})[key] = tensor
        agent.optimizer.load_state_dict(optimizer)
        if not counters.get(_ALIGNED) and (names := _reset_scrambled(agent)):
            say(
                f"{path} was written when gradients of {', '.join(names)} were applied to the "
                "wrong pixels; the optimiser's statistics for it are reset"
            )
        torch.set_rng_state(tensors["generator"])
        agent.num_updates = counters["num_updates"]
        return dict(counters["state"]), _under("sampler/", tensors)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = one_line(error)
        raise FileError(
            f"{path} belongs to another configuration ({reason}); use --fresh to start over"
        ) from error


def _reset_scrambled(agent: Agent[Any]) -> list[str]:
    """Reset Adam's statistics of weights whose gradients once had another memory layout.

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


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
