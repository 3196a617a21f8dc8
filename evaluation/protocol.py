"""The evaluation protocol: the same task, seeds and rules for every policy.

Policies are scored at the native reward, skill and time limit, whatever they were trained at.
"""

from __future__ import annotations

import contextlib
import functools
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from agents import NoopPlayer, Player, RandomPlayer, observation_specs
from agents.device import choose_device
from envs import EnvConfig, EnvError, SharedVectorEnv
from envs.doom.cfg import game_spec, strange_wads
from envs.filmed import FilmedEnv
from envs.moved import find_moved
from envs.registry import check_no_import, frames_per_env_step, needs_trust, own_time_limit
from evaluation.playing import play_episodes
from evaluation.printing import print_line
from processes.streams import say_once
from storage.files import FileError, decode
from storage.onnx_file import OnnxFile, PlayableFile
from storage.policy_file import About, PolicyFile, describe_space
from storage.recording import Episode

LONGEST_EPISODE = 4_000
"""Env steps after which an evaluation ends an episode if the environment has no time limit."""

ConfigT = TypeVar("ConfigT", bound=EnvConfig)
_MOST_OBSERVED = 2**25  # Bytes of the observations of all environments that are scored together.


def counted(num: int, noun: str) -> str:
    """Return a number of things as text, as in `1 episode` and `20 episodes`."""
    return f"{num:,} {noun}" if num == 1 else f"{num:,} {noun}s"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which episodes are played, and how many in parallel.

    Attributes:
        episodes: number of episodes.
        seed: seed of the first episode; the seeds of the others follow.
        num_envs: number of environments in parallel.
        device: device of the policies, `auto`, `cpu` or `cuda`; results differ by rounding only.
    """

    episodes: int = 100
    seed: int = 0
    num_envs: int = 16
    device: str = "cpu"

    def facts(self, config: EnvConfig) -> dict[str, Any]:
        """Return the rules in an environment, for JSON."""
        spec = game_spec(config.env)
        skill = config.skill or (spec.settings.get("doom_skill", 3) if spec else None)
        chosen = {"env_kwargs": list(config.env_kwargs), "buttons": list(config.buttons)}
        return {
            **{name: values for name, values in chosen.items() if values},
            "episodes": self.episodes,
            "seeds": [self.seed, self.seed + self.episodes - 1],
            "num_envs": parallel_envs(config, self.num_envs, self.episodes),
            "reward": "native",
            "skill": skill,
            "frame_skip": frames_per_env_step(config),
            "time_limit_frames": config.time_limit or (spec.time_limit if spec else None),
        }

    def sentence(self, config: EnvConfig) -> str:
        """Return the rules in an environment, as text."""
        facts = self.facts(config)
        first, last = facts["seeds"]
        limit, skill = facts["time_limit_frames"], facts["skill"]
        end = f" or after {limit:,} frames" if limit else ""
        at_skill = f" at skill {skill:g}" if skill else ""
        seeds = f"seed {first}" if first == last else f"seeds {first} to {last}"
        kwargs = " ".join(config.env_kwargs)
        made = f"an environment made with {kwargs}; " if kwargs else ""
        made += f"the buttons {' '.join(config.buttons)}; " if config.buttons else ""
        return (
            f"Protocol: {counted(self.episodes, 'episode')} at {seeds}, which training never "
            f"uses; {made}native reward{at_skill}; frame_skip {facts['frame_skip']}; an episode "
            f"ends when the environment ends it{end}; "
            f"{counted(facts['num_envs'], 'environment')} in parallel. "
            "Sampled: actions are sampled as in training; greedy: the most likely action is taken."
        )


def native(file: PlayableFile, path: Path, *, trust: bool) -> EnvConfig:
    """Return the environment that a policy is scored in.

    It is the environment of its training at native skill and time limit, where losing a life does
    not end an episode. An environment without a time limit of its own keeps that of the training.

    Raises:
        FileError: If there is no such environment, or it needs `trust`.
    """
    config = env_config(file.env, path, trust=trust).whole_games().without_targets()
    try:
        if (
            config.time_limit is not None
            and own_time_limit(config.env, config.env_kwargs) is not None
        ):
            config = replace(config, time_limit=None)
        return bounded(replace(config, skill=None))
    except EnvError as error:
        raise FileError(f"{path} names an environment that cannot be made: {error}") from error


def bounded(config: ConfigT) -> ConfigT:
    """Return the configuration of an environment for evaluations, in which every episode ends.

    Whole games are played. An environment without any time limit gets one of `LONGEST_EPISODE`.

    Raises:
        EnvError: If there is no such environment.
    """
    config = config.whole_games()
    if config.time_limit is None and own_time_limit(config.env, config.env_kwargs) is None:
        config = replace(config, time_limit=LONGEST_EPISODE * frames_per_env_step(config))
    return config


def is_bounded(config: EnvConfig) -> bool:
    """Return whether the time limit of an environment is that of `bounded`."""
    return config.time_limit == LONGEST_EPISODE * frames_per_env_step(config)


def pasteable(run: Path, config: EnvConfig, imports: Sequence[str] = ()) -> str:
    """Return a run as an argument of printed commands, with `--trust` where it is needed.

    Args:
        run: run folder or policy file.
        config: its environment.
        imports: modules of the user's own that its training imported.
    """
    trust = " --trust" if imports or needs_trust(config) else ""
    return f"{shlex.quote(str(run))}{trust}"


def report_bound(
    episodes: Sequence[Episode], config: EnvConfig, say: Callable[[str], None]
) -> None:
    """Report how many episodes ended only because evaluations have a bound.

    Args:
        episodes: were played in an environment of `bounded`.
        config: its configuration.
        say: is called with the line.
    """
    if not is_bounded(config):
        return
    ended = sum(len(e.rewards) >= LONGEST_EPISODE and not e.terminated for e in episodes)
    if ended:
        say(
            f"{ended} of {len(episodes)} episodes of an evaluation were ended after "
            f"{LONGEST_EPISODE:,} env steps, because {config.env} has no time limit; train with "
            "--time-limit to set one"
        )


def named_env(fields: dict[str, Any], path: Path) -> EnvConfig:
    """Return the environment that a file names, which need not exist.

    Args:
        fields: fields of the environment's configuration.
        path: the file, for messages.

    Raises:
        FileError: If the fields are not those of an environment.
    """
    try:
        return decode(EnvConfig, fields)
    except FileError as error:
        raise FileError(f"{path} names an environment that cannot be made: {error}") from error


def env_config(fields: dict[str, Any], path: Path, *, trust: bool) -> EnvConfig:
    """Return the environment that a file names, with its files where they are now.

    Args:
        fields: fields of the environment's configuration.
        path: the file.
        trust: whether a package that the file names may be imported.

    Raises:
        FileError: If there is no such environment, its files are not found, or it needs `trust`.
    """
    config = named_env(fields, path)
    try:
        now = find_moved(config.env, config.files, path)
        if now != config.env:
            say_once(f"{config.env} is now {now}: the content is the same")
        if not trust:
            check_no_import(replace(config, env=now))
    except EnvError as error:
        raise FileError(f"{path} names an environment that cannot be made: {error}") from error
    return replace(config, env=now)


def warn_of_wads(env: str) -> None:
    """Print a warning for each WAD of an environment that does not come with ViZDoom, once."""
    for wad in strange_wads(env):
        say_once(
            f"{wad} does not come with ViZDoom; the engine is old, so use only files that you trust"
        )


def parallel_envs(config: EnvConfig, num_envs: int, episodes: int) -> int:
    """Return how many environments are opened for scoring.

    They are at most one for each episode, and fewer than configured if their observations, whose
    size a file from a stranger may choose, would take much memory. Scores do not depend on it.

    Args:
        config: the environment.
        num_envs: number of environments, as configured.
        episodes: number of episodes.
    """
    planes = 3 + len(config.extra_channels)
    size = config.height * config.width * config.frame_stack * planes
    return max(1, min(num_envs, episodes, _MOST_OBSERVED // size))


@contextlib.contextmanager
def vector_env(
    config: EnvConfig, num_envs: int, episodes: int, stops: Callable[[], bool] = lambda: False
) -> Iterator[SharedVectorEnv]:
    """Open environments for scoring; see `parallel_envs`.

    Args:
        config: the environment.
        num_envs: number of environments.
        episodes: number of episodes.
        stops: see `SharedVectorEnv`.
    """
    warn_of_wads(config.env)
    num_envs = parallel_envs(config, num_envs, episodes)
    with contextlib.closing(SharedVectorEnv(bounded(config), num_envs, stops=stops)) as envs:
        yield envs


def check_fits(file: PlayableFile, envs: SharedVectorEnv | FilmedEnv, path: Path) -> None:
    """Check that a policy has the observations and actions of the environments.

    Raises:
        FileError: If they differ.
    """
    specs = observation_specs(envs.single_observation_space, envs.metadata)
    if specs != file.policy.specs:
        raise FileError(f"{path} was trained on other observations than those of {envs.config.env}")
    theirs, ours = file.policy.action_space, envs.single_action_space
    if describe_space(theirs) != describe_space(ours):
        raise FileError(f"{path} has actions {theirs}, but {envs.config.env} has {ours}")


def baselines(envs: SharedVectorEnv) -> dict[str, Player]:
    """Return the untrained baselines: random actions, and in Doom also doing nothing."""
    players: dict[str, Player] = {"random": RandomPlayer(envs.single_action_space)}
    if game_spec(envs.config.env) is not None:
        players["noop"] = NoopPlayer(envs.single_action_space)
    return players


def play(
    player: Player | PlayableFile,
    envs: SharedVectorEnv | FilmedEnv,
    protocol: Protocol,
    *,
    greedy: bool = False,
) -> list[Episode]:
    """Play a protocol's episodes, and return them in the order of their seeds.

    Args:
        player: a policy or a baseline.
        envs: the environments.
        protocol: which episodes are played.
        greedy: whether the most likely actions are taken instead of sampling.
    """
    about, device = About(), torch.device("cpu")
    if isinstance(player, PolicyFile):
        about, device = player.about, choose_device(protocol.device)
        player = player.policy.to(device)
    elif isinstance(player, OnnxFile):
        about, player = player.about, player.policy
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
    episodes = sorted(played, key=lambda episode: episode.seed)
    report_bound(episodes, envs.config, functools.partial(print_line, file=sys.stderr))
    return episodes
