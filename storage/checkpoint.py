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
from storage.tensor_file import (
    FORMAT,
    TensorFile,
    expect_kinds,
    kind_of,
    one_line,
    write_tensors,
)
from storage.upgrade import upgraded_tensor_name

# Whether gradients had the memory layout of their parameters; older checkpoints do not say so.
_ALIGNED = "aligned_gradients"
# Bytes of a checkpoint beside the policy and its optimiser: the current observations, the states of
# memories, and the actions of the episodes in progress, which may be long.
_MAX_BESIDE = 2**32


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
    write_tensors(path, *training_content(agent, state, collector_state or {}))


def training_content(
    agent: Agent[Any], state: Mapping[str, Any], collector_state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what `save_training` writes: tensors by name, and counters, as JSON."""
    tensors = {f"policy/{name}": tensor for name, tensor in agent.policy.state_dict().items()}
    for objective, module in agent.objectives.items():
        for name, tensor in module.state_dict().items():
            tensors[f"objectives/{objective}/{name}"] = tensor
    for name, tensor in agent.reward_scaler.state_dict().items():
        tensors[f"reward_scaler/{name}"] = tensor
    tensors |= optimizer_tensors(agent.optimizer)
    for name, tensor in collector_state.items():
        tensors[f"sampler/{name}"] = tensor
    tensors["generator"] = torch.get_rng_state()
    counters = {
        "optimizer": type(agent.optimizer).__name__,
        "num_updates": agent.num_updates,
        _ALIGNED: True,
        "state": dict(state),
    }
    return tensors, counters


def load_training(
    path: Path,
    agent: Agent[Any],
    say: Callable[[str], None] = lambda text: None,
    *,
    num_ranks: int = 1,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Restore an agent from a checkpoint.

    Args:
        path: a file that `save_training` wrote.
        agent: a new agent with the same configuration.
        say: is called with one line about what in the file is not used.
        num_ranks: the number of processes whose state it holds.

    Returns:
        The further counters, and the collector's state, empty if none was saved.

    Raises:
        DamagedError: If the file is not what was written.
        FileError: If it belongs to another configuration.
    """
    content = TensorFile(path)
    modules = [agent.policy, *agent.objectives.values()]
    sizes = [tensor.nbytes for module in modules for tensor in module.state_dict().values()]
    largest = num_ranks * (_MAX_BESIDE + 8 * sum(sizes))
    if path.stat().st_size > largest:
        raise DamagedError(f"{path} is too large to be a checkpoint of this agent")
    tensors, counters = content.tensors(), content.description
    try:
        if counters["format"] < FORMAT:
            tensors = {_upgraded(name): tensor for name, tensor in tensors.items()}
        restored = restore_training(agent, tensors, counters)
        if not counters.get(_ALIGNED) and (names := _reset_scrambled(agent)):
            say(
                f"{path} was written when gradients of {', '.join(names)} were applied to the "
                "wrong pixels; the optimiser's statistics for it are reset"
            )
        return restored
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = one_line(error)
        raise FileError(
            f"{path} belongs to another configuration ({reason}); use --fresh to start over"
        ) from error


def restore_training(
    agent: Agent[Any], tensors: Mapping[str, Tensor], counters: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Restore an agent from what `training_content` returned; see `load_training`.

    Raises:
        LookupError, TypeError, ValueError, RuntimeError: If it belongs to another configuration.
    """
    optimizer = _expect_state_of(agent, tensors, counters)
    agent.policy.load_state_dict(under("policy/", tensors))
    for objective, module in agent.objectives.items():
        module.load_state_dict(under(f"objectives/{objective}/", tensors))
    agent.reward_scaler.load_state_dict(under("reward_scaler/", tensors))
    agent.optimizer.load_state_dict(optimizer)
    torch.set_rng_state(tensors["generator"])
    agent.num_updates = counters["num_updates"]
    return dict(counters["state"]), under("sampler/", tensors)


def _expect_state_of(
    agent: Agent[Any], tensors: Mapping[str, Tensor], counters: Mapping[str, Any]
) -> dict[str, Any]:
    """Check that a checkpoint has exactly what the state of an agent consists of.

    The state of a collector is not checked here, see `Collector.load_state`.

    Args:
        agent: the agent.
        tensors: those of the checkpoint.
        counters: its description.

    Returns:
        The state of the optimiser.

    Raises:
        ValueError: If a name, a shape or a type differs.
    """
    expected = {"generator": torch.get_rng_state()}
    modules = {"policy": agent.policy, "reward_scaler": agent.reward_scaler}
    modules |= {f"objectives/{name}": module for name, module in agent.objectives.items()}
    for prefix, module in modules.items():
        expected |= {f"{prefix}/{name}": t for name, t in module.state_dict().items()}
    others = ("optimizer/", "sampler/")
    expect_kinds(
        {name: kind_of(t) for name, t in tensors.items() if not name.startswith(others)}, expected
    )
    torch.Generator().set_state(tensors["generator"])  # Raises if it is not the state of one.
    updates = counters["num_updates"]
    if type(updates) is not int or not 0 <= updates < 2**63 or type(counters["state"]) is not dict:
        raise ValueError("its counters are damaged")
    if counters["optimizer"] != type(agent.optimizer).__name__:
        raise ValueError(f"its optimiser is {counters['optimizer']!s:.40}")
    return optimizer_state(agent.optimizer, under("optimizer/", tensors))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimiser keeps of its parameters, by names such as `optimizer/3/exp_avg`."""
    return {
        f"optimizer/{parameter}/{name}": tensor
        for parameter, values in optimizer.state_dict()["state"].items()
        for name, tensor in values.items()
    }


def optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return the state of an optimiser with tensors such as `3/exp_avg`.

    Fused optimisers write beyond the end of a tensor of another shape or type, so these must be
    exactly those that the optimiser makes: like the parameter, or a scalar. A parameter that has
    never had a gradient has no state.

    Raises:
        ValueError: If a name, a shape or a type differs.
    """
    parameters = {str(i): p for i, p in enumerate(_parameters(optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition("/")
        found.setdefault(number, {})[key] = tensor
    for number, values in found.items():
        if number not in parameters:
            raise ValueError(f"the optimiser has no parameter {number:.20}")
        parameter = parameters[number]
        like = {
            key: parameter if is_like else torch.zeros((), dtype=torch.float32)
            for key, is_like in _statistics(optimizer).items()
        }
        expect_kinds({key: kind_of(tensor) for key, tensor in values.items()}, like)
        state[int(number)] = {
            # In the memory layout of the parameter, which fused optimisers assume.
            key: torch.empty_like(parameter, requires_grad=False).copy_(tensor)
            if like[key] is parameter
            else tensor
            for key, tensor in values.items()
        }
    return {**optimizer.state_dict(), "state": state}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _statistics(optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """Return the names of what an optimiser keeps of a parameter, and whether it is as large."""
    example = torch.nn.Parameter(torch.zeros(2))
    example.grad = torch.zeros(2)
    group = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    alike = type(optimizer)([{"params": [example], **group}])  # type: ignore[call-arg] # each has defaults
    alike.step()
    return {key: value.ndim > 0 for key, value in alike.state[example].items()}


def _upgraded(name: str) -> str:
    """Return the present name of a tensor in a checkpoint of format 3."""
    prefix = "policy/"
    if not name.startswith(prefix):
        return name
    return prefix + upgraded_tensor_name(name.removeprefix(prefix))


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


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
