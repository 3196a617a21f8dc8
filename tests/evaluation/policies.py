"""Policies for CartPole whose ranking is known, saved as trainings save them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from unittest.mock import patch

import torch
from gymnasium import spaces

from envs import EnvConfig
from evaluation.compare import MODES, Comparison, compare, rank
from evaluation.entries import find_entries
from evaluation.protocol import Protocol
from perception import VectorSpec
from storage.policy_file import About, save_policy
from tests.agents.synthetic import make_policy
from tests.agents.toy import LocalEnvs


def cartpole_policy(skill: float, memory: str = "none"):
    """Make a policy that pushes in the direction in which the pole falls.

    It does so always at skill 1, never at -1, and half of the time at 0. At skill 1 the cart soon
    leaves the track, so that episodes last about 90 env steps: longer ones would slow tests down.
    """
    specs = {"obs": VectorSpec(size=4)}
    policy = make_policy(specs=specs, actions=spaces.Discrete(2), memory=memory, memory_size=8)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        linear = policy.perception.encoders["obs"].encoder.layers[1]
        linear.weight[0] = torch.tensor([-6.0, 0.0, 10.0, 0.5])
        policy.actor.layer.weight[:, 0] = torch.tensor([-4.0, 4.0]) * skill
    return policy


def save_run(
    folder: Path,
    skill: float = 0.0,
    *,
    seed: int = 0,
    agent: str = "ppo",
    env: str = "CartPole-v1",
    curve=(),
    memory: str = "none",
    frame_skip: int | None = None,
    env_kwargs: tuple[str, ...] = (),
    **about,
) -> str:
    """Save a run folder with a policy and a learning curve, and return its path."""
    policy = cartpole_policy(skill, memory)
    fields = asdict(EnvConfig(env=env, frame_skip=frame_skip, env_kwargs=env_kwargs))
    known = About(agent=agent, seed=seed, **about)
    save_policy(folder / "policy.safetensors", policy, env=fields, about=known)
    if curve:
        save_curve(folder / "progress.csv", curve)
    return str(folder)


def save_curve(path: Path, curve) -> None:
    """Save a learning curve as the progress.csv of a run."""
    lines = [f"{steps},{value}" for steps, value in curve]
    path.write_text("\n".join(["time/total_timesteps,rollout/ep_rew_mean", *lines]) + "\n")


@contextlib.contextmanager
def local_env(config: EnvConfig, num_envs: int, episodes: int) -> Iterator[LocalEnvs]:
    """Open environments in this process, in place of `evaluation.protocol.vector_env`."""
    envs = LocalEnvs(config.env, min(num_envs, episodes))
    envs.config, envs.metadata = config, {}
    yield envs


def compare_runs(
    *runs: str,
    episodes: int = 20,
    num_envs: int = 12,
    modes=tuple(MODES),
    with_workers: bool = False,
) -> Comparison:
    """Compare run folders of one environment.

    Args:
        *runs: run folders, files or patterns.
        episodes: number of episodes.
        num_envs: number of environments.
        modes: names in `MODES`.
        with_workers: whether environments are in worker processes, whose start takes a second for
            each policy, instead of in this process.
    """
    protocol = Protocol(episodes=episodes, num_envs=num_envs)
    entries = find_entries(runs, trust=False)
    local = patch("evaluation.compare.vector_env", local_env)
    with contextlib.nullcontext() if with_workers else local:
        return compare(entries, protocol, modes=modes, progress=lambda name: None)


def renamed(comparison: Comparison, *names: str) -> Comparison:
    """Rename the entries of a comparison, best first; further entries keep their names."""
    entries = dict.fromkeys(result.entry for result in comparison.results if result.mode)
    others = dict(zip(entries, names, strict=False))
    results = [replace(r, entry=others.get(r.entry, r.entry)) for r in comparison.results]
    return rank(comparison.config, comparison.protocol, results)


def by_name(comparison: Comparison):
    """Return the results of a comparison by name."""
    return {result.name: result for result in comparison.results}
