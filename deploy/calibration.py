"""The observations and memory states that a policy sees when it acts, to calibrate 8 bits on.

They come from recorded episodes, or from new ones at seeds of training; never from episodes by
which policies are scored.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from agents.distributions import num_draws
from deploy.errors import DeployError
from deploy.int8 import Inputs
from envs import EnvConfig, make
from envs.fingerprint import refuse_other_files
from envs.spaces import as_parts
from evaluation.protocol import env_config
from evaluation.seeds import TRAINING
from storage.onnx_file import STARTS, STATE
from storage.policy_file import PolicyFile
from storage.recording import load_recording

NUM_STEPS = 512
"""Env steps that are observed."""
BATCH = 32

_SCORED = "score-"  # What the names of recordings of `score` begin with.
_MOST_EPISODES = 200
# What decides which observations and actions there are.
_SAME = (
    "env",
    "frame_skip",
    "observation",
    "height",
    "width",
    "frame_stack",
    "extra_channels",
    "variables",
    "sound",
    "notifications",
    "buttons",
    "actions",
    "delta_bins",
    "env_kwargs",
    "wrappers",
)


def recorded(folder: Path) -> list[Path]:
    """Return the recordings in a folder that do not come from `score`.

    Those of the last evaluation come first: earlier policies have seen other things.
    """
    found = [path for path in sorted(folder.glob("*.npz")) if not path.name.startswith(_SCORED)]

    def env_steps(path: Path) -> int:
        number = re.match(r"evaluation-(\d+)", path.name)
        return int(number[1]) if number else -1

    return sorted(found, key=env_steps, reverse=True)


def observed(
    file: PolicyFile, config: EnvConfig, recordings: list[Path], *, trust: bool = False
) -> list[Inputs]:
    """Return what a policy sees in episodes, in batches in random order.

    Args:
        file: the policy.
        config: the environment in which it is scored.
        recordings: recorded episodes. If there are none, new ones are played.
        trust: whether modules that recordings name may be imported.

    Raises:
        DeployError: If a recording is of another environment.
        FileError: If a recording is damaged.
    """
    steps: list[Inputs] = []
    with contextlib.ExitStack() as stack:
        opened: dict[EnvConfig, Any] = {}  # An engine takes longer to start than many an episode.
        for played, seed, actions in _sources(config, recordings, trust=trust):
            if played not in opened:
                opened[played] = stack.enter_context(contextlib.closing(make(played)))
            steps += _episode(file, opened[played], seed, actions)
            if len(steps) >= NUM_STEPS:
                break
    order = np.random.default_rng(0).permutation(len(steps))
    chosen = [steps[number] for number in order[:NUM_STEPS]]
    size = min(BATCH, max(1, len(chosen) // 2))
    batches = [chosen[first : first + size] for first in range(0, len(chosen), size)]
    return [
        {name: np.stack([step[name] for step in batch]) for name in batch[0]} for batch in batches
    ]


def _sources(
    config: EnvConfig, recordings: list[Path], *, trust: bool
) -> Iterator[tuple[EnvConfig, int, NDArray[Any] | None]]:
    """Yield environment, seed and actions of each episode; None: the policy acts."""
    for path in recordings:
        recording = load_recording(path)
        theirs = env_config(recording.env, path, trust=trust)
        _check_same(theirs, config, path)
        refuse_other_files(theirs.env, recording.game)
        yield theirs, recording.episode.seed, recording.episode.actions
    if not recordings:
        for number in range(_MOST_EPISODES):
            yield config, TRAINING + number, None


def _check_same(theirs: EnvConfig, config: EnvConfig, path: Path) -> None:
    """Check that a recording is of an environment; its skill and time limit may be others.

    Raises:
        DeployError: If it is not.
    """
    for name in _SAME:
        found, expected = getattr(theirs, name), getattr(config, name)
        if name == "env" and theirs.files == config.files != ():
            continue  # Copies of the same files are one environment.
        if found != expected:
            raise DeployError(
                f"{path} was recorded with {name} {found}, and the policy acts with {expected}; "
                "calibrate on episodes of the same environment"
            )


def _episode(
    file: PolicyFile, env: gym.Env[Any, Any], seed: int, actions: NDArray[Any] | None
) -> list[Inputs]:
    """Return what a policy sees in an episode, step by step, with the state of its memory."""
    policy = file.policy
    steps: list[Inputs] = []
    state, start = policy.initial_state(1), torch.ones(1, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    obs, _ = env.reset(seed=seed)
    longest = NUM_STEPS if actions is None else min(NUM_STEPS, len(actions))
    while len(steps) < longest:
        parts = as_parts(obs)
        arrays = {name: np.array(parts[name]) for name in policy.specs}
        memory = {STATE: state[:, 0].numpy(), STARTS: start[0].numpy()}
        steps.append(arrays | (memory if policy.is_recurrent else {}))
        draws = torch.rand(1, num_draws(policy.action_space), generator=generator)
        tensors = {name: torch.from_numpy(array)[None] for name, array in arrays.items()}
        decision = policy.act(tensors, state, start, draws)
        state, start = decision.memory_state, torch.zeros(1, dtype=torch.bool)
        own = decision.actions[0].numpy()
        obs, _, terminated, truncated, _ = env.step(
            own if actions is None else actions[len(steps) - 1]
        )
        if terminated or truncated:
            break
    return steps
