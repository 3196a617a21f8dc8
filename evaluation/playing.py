"""Playing episodes with fixed seeds, and scoring them.

Axes: N environments, E episodes, A choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.collector import BatchedEnvs, StepResult, as_numpy, as_tensors, is_lost
from agents.device import single_thread
from agents.distributions import num_draws
from agents.policy import Decision, Player
from evaluation.statistics import Score, summarize
from storage.recording import Episode


class CountingPlayer:
    """A player that gathers statistics of the episodes that are to be played, and of no others.

    Attributes:
        counted: (N,) bool, the environments in which such an episode is played at present; the
            others only continue until all of these have ended. None: all.
    """

    counted: Tensor | None = None


def play_episodes(
    player: Player,
    envs: BatchedEnvs,
    *,
    num_episodes: int,
    seed: int,
    greedy: bool,
    device: torch.device | None = None,
    gamma: float = 0.0,
    value_unit: float = 1.0,
) -> Iterator[Episode]:
    """Play the episodes with seeds `seed` to `seed + num_episodes - 1`.

    Environment i plays the seeds `seed + i`, `seed + i + N`, and so on. If instead the next seed
    went to the first environment that is free, short episodes would be over-represented. Each
    episode has its own generator for actions, seeded by the episode's seed, so that episodes do not
    depend on the number of environments.

    Args:
        player: the policy or baseline.
        envs: N environments, all in one group.
        num_episodes: E.
        seed: seed of the first episode.
        greedy: whether the most likely actions are taken instead of sampling.
        device: device of the player; default: the CPU.
        gamma: discount factor of the player's critic; 0 if it has no critic.
        value_unit: native reward that corresponds to a value of 1.

    Yields:
        Episodes, in the order in which they end.
    """
    device = device or torch.device("cpu")
    num_envs = envs.num_envs
    assert envs.num_groups == 1, "evaluation steps all environments together"
    num = num_draws(envs.single_action_space)
    envs.reset(seed=seed)
    state = player.initial_state(num_envs).to(device)
    starts = torch.ones(num_envs, dtype=torch.bool, device=device)
    seeds = envs.episode_seeds
    generators = [_generator(int(s)) for s in seeds]
    steps: list[list[_Step]] = [[] for _ in range(num_envs)]
    left = num_episodes
    while left:
        obs = as_tensors(envs.current_obs(0), device)
        if isinstance(player, CountingPlayer):
            player.counted = torch.from_numpy(seeds < seed + num_episodes).to(device)
        with single_thread():
            draws = None if greedy else torch.from_numpy(_draw(generators, num)).to(device)
            decision = player.act(obs, state, starts, draws)
        state = decision.memory_state
        actions = decision.actions.cpu().numpy()
        envs.send(0, actions)
        result = envs.receive(0)
        _append(steps, actions, decision, result)
        terminated = as_numpy(result.terminated)
        dones = terminated | as_numpy(result.truncated)
        starts = torch.from_numpy(dones).to(device)
        for lane in np.flatnonzero(dones):
            if is_lost(result, lane):  # The episode is restarted.
                steps[lane] = []
                generators[lane] = _generator(int(seeds[lane]))
                continue
            if seeds[lane] < seed + num_episodes:
                actions_of, rewards, values, probabilities = zip(*steps[lane], strict=True)
                yield Episode(
                    seed=int(seeds[lane]),
                    greedy=greedy,
                    actions=np.array(actions_of),
                    rewards=np.array(rewards, np.float64),
                    values=np.array(values, np.float32) * np.float32(value_unit),
                    probabilities=np.array(probabilities, np.float32),
                    terminated=bool(terminated[lane]),
                    gamma=gamma,
                    statistics=dict(
                        zip(envs.episode_keys, result.episode[lane].tolist(), strict=True)
                    ),
                )
                left -= 1
            steps[lane] = []
            seeds[lane] += num_envs
            generators[lane] = _generator(int(seeds[lane]))


def _generator(seed: int) -> np.random.Generator:
    # A child of the seed: the environment draws from the seed itself, and an action that was drawn
    # from the same numbers could predict the environment's.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))


def _draw(generators: Sequence[np.random.Generator], num: int) -> NDArray[np.float32]:
    return np.stack([generator.random(num, np.float32) for generator in generators])


_Step = tuple[Any, float, float, NDArray[np.float32]]
"""Action, reward, value and probabilities."""


def _append(
    steps: list[list[_Step]], actions: NDArray[Any], decision: Decision, result: StepResult
) -> None:
    values, probabilities = decision.values.cpu().numpy(), decision.probabilities.cpu().numpy()
    for lane, episode in enumerate(steps):
        reward = float(result.rewards[lane])
        episode.append((actions[lane].copy(), reward, float(values[lane]), probabilities[lane]))


def score_episodes(*episodes_of_seeds: Sequence[Episode]) -> Score:
    """Compute the score of one policy, or of an agent with several training seeds.

    Args:
        *episodes_of_seeds: E episodes for each training seed.

    Raises:
        ValueError: If there are no episodes.
    """
    returns = [np.array([e.episode_return for e in episodes]) for episodes in episodes_of_seeds]
    lengths = [len(e.rewards) for episodes in episodes_of_seeds for e in episodes]
    return summarize(returns, float(np.mean(lengths)) if lengths else 0.0)
