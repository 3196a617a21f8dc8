"""Compare initialisations of LSTM and GRU: orthogonal as a whole or per gate, forget bias 0 or 1.

    nice -n 5 python -m benchmarks.memory_init

Each is trained with the same seeds in environments that need memory: a pole whose velocities are
hidden, and a bit that is shown once and asked for in the 2nd or the 20th env step. Scores are mean
returns: over all episodes of the training, which measures how fast it learns, and over 100 episodes
after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import torch
import tyro
from torch import nn

from agents import PPO, PPOConfig, Sampler, build_policy, observation_specs
from envs import EnvConfig, SharedVectorEnv
from evaluation.playing import play_episodes, score_episodes
from perception import MEMORIES, PerceptionConfig
from perception.encoders import VectorConfig

_NUM_ENVS = 16

_RECALL = PPOConfig(
    rollout_length=16,
    minibatch_size=64,
    learning_rate=3e-3,
    gamma=0.9,
)
_RECALL_LATER = PPOConfig(
    rollout_length=60,
    minibatch_size=240,
    learning_rate=3e-3,
    gamma=0.99,
)
_MASKED_CARTPOLE = PPOConfig(
    rollout_length=64,
    num_epochs=8,
    learning_rate=2e-3,
    anneal_learning_rate=True,
    gamma=0.98,
    entropy_coef=0.0,
    target_kl=0.02,
    reward_scale=0.05,
    normalize_obs=True,
)
# Environments of tests/agents/toy.py: env steps, width of encoder and memory, hyper-parameters.
TASKS: dict[str, tuple[int, int, PPOConfig]] = {
    "Recall-v0": (1_500, 16, _RECALL),
    "RecallLater-v0": (30_000, 16, _RECALL_LATER),
    "MaskedCartPole-v1": (16_000, 32, _MASKED_CARTPOLE),
}


def whole(layer: nn.Module) -> None:
    """Initialise the weights of all gates as one orthogonal matrix, and biases with zero."""
    for parameter in layer.parameters():
        if parameter.dim() > 1:
            nn.init.orthogonal_(parameter)
        else:
            nn.init.zeros_(parameter)


def forget(bias: float) -> Callable[[nn.LSTM], Any]:
    """Return a function that sets the bias of an LSTM's forget gate."""
    return lambda layer: layer.get_parameter("bias_ih_l0").data.chunk(4)[1].fill_(bias)


# Each changes a new layer, whose weights are orthogonal per gate.
INITIALISATIONS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "lstm": {
        "per gate, 0": forget(0.0),
        "per gate, 1": forget(1.0),
        "as a whole, 0": whole,
    },
    "gru": {
        "per gate": lambda _: None,
        "as a whole": whole,
    },
}


@dataclass(frozen=True, kw_only=True)
class MemoryInit:
    """What is measured."""

    seeds: int = 5
    """Number of training seeds."""
    memories: tuple[str, ...] = ("lstm", "gru")
    """Names of memories."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Names of environments, see `TASKS`."""


def score(
    env: str, memory: str, initialise: Callable[[Any], Any], seed: int
) -> tuple[float, float]:
    """Train with an initialisation, and return the scores during and after the training."""
    torch.manual_seed(seed)
    env_steps, size, config = TASKS[env]
    memory_config: Any = MEMORIES[memory][0]
    perception: PerceptionConfig[Any, Any] = PerceptionConfig(
        memory=memory_config(memory_size=size), vectors=VectorConfig(hidden_sizes=(size,))
    )
    envs = SharedVectorEnv(EnvConfig(env=f"tests.agents.toy:{env}"), _NUM_ENVS, num_workers=1)
    policy = build_policy(
        observation_specs(envs.single_observation_space, {}),
        envs.single_action_space,
        perception,
        normalize_obs=config.normalize_obs,
    )
    initialise(policy.perception.memory.get_submodule("layer"))
    updates = env_steps // (_NUM_ENVS * config.rollout_length)
    agent = PPO(policy, config, num_envs=_NUM_ENVS, total_updates=updates)
    returns: list[float] = []
    with contextlib.closing(envs):
        sampler = Sampler(envs, policy, rollout_length=config.rollout_length, seed=10_000 + seed)
        with contextlib.closing(sampler):
            for _ in range(updates):
                rollout, episodes, *_ = sampler.collect()
                agent.update(rollout)
                returns += [episode.statistics["r"] for episode in episodes]
        played = list(play_episodes(policy, envs, num_episodes=100, seed=0, greedy=False))
    return mean(returns), score_episodes(played).mean


def main() -> None:
    """Measure, and print a Markdown table."""
    options = tyro.cli(MemoryInit, description=__doc__)
    torch.set_num_threads(1)
    print(
        "| environment | memory | orthogonal, bias | in training | by seed | after it | by seed |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for env in options.tasks:
        for memory in options.memories:
            for name, initialise in INITIALISATIONS[memory].items():
                scores = [score(env, memory, initialise, seed) for seed in range(options.seeds)]
                cells = [env, memory, name]
                for column in zip(*scores, strict=True):
                    cells.append(f"{mean(column):.2f} ± {stdev(column):.2f}")
                    cells.append(" ".join(f"{number:.2f}" for number in column))
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
