"""Policies whose order is known, saved as trainings save them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from gymnasium import spaces

from agents.checkpoint import About, save_policy
from envs import EnvConfig
from evaluation.compare import MODES, Comparison, compare, rank
from evaluation.entries import find_entries
from evaluation.protocol import Protocol
from perception import VectorSpec
from tests.agents.synthetic import make_policy


def cartpole_policy(skill: float, **perception):
    """Make a policy that pushes to where the pole falls: surely at 1, never at -1, or by chance.

    At 1 it lasts some 250 env steps, as it does not mind where the cart is.
    """
    policy = make_policy(
        specs={"obs": VectorSpec(size=4)}, actions=spaces.Discrete(2), **perception
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        policy.perception.encoders["obs"].layers[1].weight[0] = torch.tensor([-1.0, 0.0, 10.0, 0.5])
        policy.actor.layer.weight[:, 0] = torch.tensor([-4.0, 4.0]) * skill
    return policy


def save_run(
    folder: Path,
    skill: float = 0.0,
    *,
    seed: int = 0,
    env: str = "CartPole-v1",
    curve=(),
    memory: str = "none",
    frame_skip: int | None = None,
    **about,
) -> str:
    """Save a run folder with a policy, and the learning curve that led to it."""
    policy = cartpole_policy(skill, memory=memory, memory_size=8)
    fields = asdict(EnvConfig(env=env, frame_skip=frame_skip))
    known = About(**{"agent": "ppo", "seed": seed, **about})
    save_policy(folder / "policy.safetensors", policy, env=fields, about=known)
    if curve:
        save_curve(folder / "progress.csv", curve)
    return str(folder)


def save_curve(path: Path, curve) -> None:
    lines = [f"{steps},{value}" for steps, value in curve]
    path.write_text("\n".join(["time/total_timesteps,rollout/ep_rew_mean", *lines]) + "\n")


def compare_runs(*runs: str, episodes: int = 20, num_envs: int = 12, modes=tuple(MODES)):
    """Compare what is in run folders, all of one world."""
    protocol = Protocol(episodes=episodes, num_envs=num_envs)
    entries = find_entries(runs, trust=False)
    return compare(entries, protocol, modes=modes, say=lambda who: None)


def renamed(comparison: Comparison, *names: str) -> Comparison:
    """Call the entries otherwise, best first; those beyond the names keep theirs."""
    entries = dict.fromkeys(result.entry for result in comparison.results if result.mode)
    others = dict(zip(entries, names, strict=False))
    results = [replace(r, entry=others.get(r.entry, r.entry)) for r in comparison.results]
    return rank(comparison.config, comparison.protocol, results)


def by_name(comparison: Comparison):
    return {result.name: result for result in comparison.results}
