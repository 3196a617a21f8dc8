"""Training with several ranks: what they share when they start, and what they save together.

Rank 0 owns the run folder; the others may be on machines that cannot read it. A checkpoint is one
file, written by rank 0, that holds the state of every rank: what all of them have in common once,
and what belongs to the environments of rank R under `rankR/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from agents import SB3_AGENTS, Agent
from agents.distributed import Ranks
from storage.checkpoint import optimizer_tensors, restore_training, training_content, under
from storage.files import decode
from storage.tensor_file import from_bytes, to_bytes
from training.config import AnyTrainConfig, dotted, with_values
from training.errors import TrainingError
from training.progress import Progress
from training.randomness import generator_of


def with_ranks(config: AnyTrainConfig, ranks: Ranks | None) -> AnyTrainConfig:
    """Return a configuration for the ranks that `torchrun` starts.

    Args:
        config: the configuration.
        ranks: the ranks; None: this process is alone.

    Raises:
        TrainingError: If the configuration is for one process only.
    """
    if ranks is None:
        if config.sync_every is not None:
            raise TrainingError(
                "--sync-every averages the weights of several processes; start them with "
                "torchrun --nproc-per-node 2 train.py ..."
            )
        return config
    if config.agent_name in SB3_AGENTS:
        raise TrainingError(
            f"{config.agent_name} learns with Stable-Baselines3's code, in one process; leave out "
            "torchrun, or choose an agent of this project"
        )
    if config.teacher is not None:
        raise TrainingError("the objective distill learns in one process; leave out torchrun")
    if config.autotune:
        raise TrainingError(
            "--autotune measures one process; run it without torchrun, and pass what it chose"
        )
    return with_values(config, {"num_ranks": ranks.size})


def expect_same(ranks: Ranks, config: AnyTrainConfig) -> None:
    """Check that all ranks learn the same in the same way: their messages depend on it.

    Args:
        ranks: the ranks.
        config: the configuration of this one, which may be on another machine.

    Raises:
        TrainingError: If one differs from rank 0's.
    """
    whole = config.as_dict()
    shared = {n: whole[n] for n in ("agent", "perception", "objectives", "num_envs", "sync_every")}
    first, *others = ranks.exchange(dotted(shared | {"total": config.total_env_steps}))
    for rank, other in enumerate(others, 1):
        for name in sorted(first.keys() | other.keys()):
            if first.get(name) != other.get(name):
                raise TrainingError(
                    f"rank {rank} has {name} {other.get(name)}, and rank 0 {first.get(name)}; "
                    "give the same options to all"
                )


def share_start(
    ranks: Ranks,
    agent: Agent[Any],
    config: AnyTrainConfig,
    progress: Progress,
    collector_state: Mapping[str, Tensor],
) -> tuple[Progress, dict[str, Tensor]]:
    """Give every rank the state of rank 0, and its own part of the checkpoint that is resumed.

    Args:
        ranks: the ranks.
        agent: the agent; on all ranks but the first, it is replaced by that of rank 0.
        config: the configuration.
        progress: the progress of rank 0; ignored elsewhere.
        collector_state: what was saved by `gather_states`, at rank 0; ignored elsewhere.

    Returns:
        The progress, and the state of this rank's collector, empty if none was saved.
    """
    if not ranks.is_group:
        return progress, dict(collector_state)
    tensors, counters = training_content(agent, asdict(progress), collector_state)
    content = ranks.from_first(to_bytes(tensors) if ranks.is_first else b"")
    description = ranks.from_first(json.dumps(counters).encode())
    if ranks.is_first:
        parts = tuple(f"rank{rank}/" for rank in range(1, ranks.size))
        return progress, {n: t for n, t in collector_state.items() if not n.startswith(parts)}
    tensors = from_bytes(content)
    mine = under(f"sampler/rank{ranks.rank}/", tensors)
    tensors = {name: t for name, t in tensors.items() if not name.startswith("sampler/")}
    if not mine:
        mine = {"generator": generator_of(config.seed, ranks.rank).get_state()}
    state, collector_state = restore_training(agent, tensors | mine, json.loads(description))
    return decode(Progress, state), dict(collector_state)


def gather_states(agent: Agent[Any], collector_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return at rank 0 the state of its collector, and what belongs to each of the others.

    Args:
        agent: the agent.
        collector_state: the state of this rank's collector.
    """
    ranks = agent.averaging.ranks
    mine = {f"sampler/{name}": tensor for name, tensor in collector_state.items()}
    mine["generator"] = torch.get_rng_state()
    mine["reward_scaler/running"] = agent.reward_scaler.running
    for name, objective in agent.objectives.items():
        mine |= {f"objectives/{name}/{b}": getattr(objective, b) for b in objective.of_envs}
    if agent.averaging.sync_every is not None:  # Weights differ between two averages.
        modules: dict[str, nn.Module] = {"policy": agent.policy}
        modules |= {f"objectives/{name}": module for name, module in agent.objectives.items()}
        for prefix, module in modules.items():
            mine |= {f"{prefix}/{name}": t for name, t in module.state_dict().items()}
        mine |= optimizer_tensors(agent.optimizer)
    found = ranks.bring_to_first(b"" if ranks.is_first else to_bytes(mine))
    states = dict(collector_state)
    for rank, content in enumerate(found):
        if rank > 0:
            states |= {f"rank{rank}/{n}": tensor for n, tensor in from_bytes(content).items()}
    return states
