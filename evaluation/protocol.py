"""The protocol by which every policy is judged: the same task, seeds and rules for all.

Whatever a policy was trained at, it is judged at the native reward, skill and time limit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from agents import NoopPlayer, Player, RandomPlayer, observation_specs
from agents.checkpoint import About, FileError, PolicyFile, decode, describe_space
from agents.commandline import warn_of_wad
from agents.device import choose_device
from agents.sampler import PlayedEnvs
from envs import EnvConfig, EnvError, SharedVectorEnv
from envs.cfg import game_spec, strange_wads
from envs.registry import check_no_import, frames_per_env_step
from envs.shown import ShownEnv
from evaluation.episodes import Episode
from evaluation.play import play_episodes

MAX_SEED = 2**29 - 1
"""Seeds from here on are those of evaluations during training, and of training."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which episodes are played, and how many at a time.

    Attributes:
        episodes: how many.
        seed: of the first; the others follow.
        num_envs: environments in parallel.
        device: where policies act, `auto`, `cpu` or `cuda`; it changes no more than rounding.
    """

    episodes: int = 100
    seed: int = 0
    num_envs: int = 16
    device: str = "cpu"

    def facts(self, config: EnvConfig) -> dict[str, Any]:
        """State the rules in a world, for JSON."""
        spec = game_spec(config.env)
        skill = config.skill or (spec.settings.get("doom_skill", 3) if spec else None)
        return {
            "episodes": self.episodes,
            "seeds": [self.seed, self.seed + self.episodes - 1],
            "num_envs": min(self.num_envs, self.episodes),
            "reward": "native",
            "skill": skill,
            "frame_skip": frames_per_env_step(config),
            "time_limit_frames": config.time_limit or (spec.time_limit if spec else None),
        }

    def sentence(self, config: EnvConfig) -> str:
        """State the rules in a world, for people."""
        facts = self.facts(config)
        first, last = facts["seeds"]
        limit, skill = facts["time_limit_frames"], facts["skill"]
        end = f" or after {limit:,} frames" if limit else ""
        at_skill = f" at skill {skill:g}" if skill else ""
        return (
            f"Protocol: {self.episodes} episodes at seeds {first} to {last}, which training never "
            f"plays; native reward{at_skill}; frame_skip {facts['frame_skip']}; an episode ends "
            f"where the game ends it{end}; {facts['num_envs']} games in parallel. "
            "Sampled: actions are drawn as in training; greedy: the most likely one is taken."
        )


def native(file: PolicyFile, path: Path, *, trust: bool) -> EnvConfig:
    """Read the world a policy was trained in: whole games, at its native skill and time limit."""
    config = world(file.env, path, trust=trust).whole_games()
    return replace(config, skill=None, time_limit=None)


def world(fields: dict[str, Any], path: Path, *, trust: bool) -> EnvConfig:
    """Read the world that a file names; unless it is trusted, only what is imported anyway.

    Raises:
        FileError: If there is no such world, or it may not be made.
    """
    try:
        config = decode(EnvConfig, fields)
        if not trust:
            check_no_import(config.env)
        return config
    except (FileError, EnvError) as error:
        raise FileError(f"{path} names a world that cannot be: {error}") from error


@contextlib.contextmanager
def vector_env(config: EnvConfig, num_envs: int, episodes: int) -> Iterator[SharedVectorEnv]:
    """Open at most as many environments as there are episodes, which are whole games, to play."""
    for wad in strange_wads(config.env):
        warn_of_wad(wad)
    num_envs = min(num_envs, episodes)
    with contextlib.closing(SharedVectorEnv(config.whole_games(), num_envs)) as envs:
        yield envs


def check_fits(file: PolicyFile, envs: SharedVectorEnv | ShownEnv, path: Path) -> None:
    """Refuse a policy whose observations or actions are not this world's.

    Raises:
        FileError: If they differ.
    """
    specs = observation_specs(envs.single_observation_space, envs.metadata)
    if specs != file.policy.specs:
        raise FileError(f"{path} observes something else than {envs.config.env} shows")
    theirs, ours = file.policy.action_space, envs.single_action_space
    if describe_space(theirs) != describe_space(ours):
        raise FileError(f"{path} has actions {theirs}, {envs.config.env} has {ours}")


def baselines(envs: SharedVectorEnv) -> dict[str, Player]:
    """Give the players that learned nothing; only in Doom is doing nothing an action."""
    players: dict[str, Player] = {"random": RandomPlayer(envs.single_action_space)}
    if game_spec(envs.config.env) is not None:
        players["noop"] = NoopPlayer(envs.single_action_space)
    return players


def play(
    player: Player | PolicyFile,
    envs: PlayedEnvs,
    protocol: Protocol,
    *,
    greedy: bool = False,
) -> list[Episode]:
    """Play a protocol's episodes, in the order of their seeds."""
    about, device = About(), torch.device("cpu")
    if isinstance(player, PolicyFile):
        about, device = player.about, choose_device(protocol.device)
        player = player.policy.to(device)
    played = play_episodes(
        player,
        envs,
        device=device,
        num_episodes=protocol.episodes,
        seed=protocol.seed,
        greedy=greedy,
        gamma=about.gamma,
        value_unit=about.value_unit,
    )
    return sorted(played, key=lambda episode: episode.seed)
