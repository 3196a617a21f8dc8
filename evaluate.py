"""Score, replay, watch and compare what was trained: `python evaluate.py score RUN` and so on.

RUN is a run folder or a policy file. `python evaluate.py COMMAND --help` lists a command's options.
"""

from __future__ import annotations

import os

# Before torch is imported: threads that wait for each other soon go to sleep, instead of taking the
# cores from the games. Fewer turns cost recurrent networks their speed, more cost the games.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from agents import NoopPlayer, Player, RandomPlayer, observation_specs
from agents.checkpoint import FileError, PolicyFile, decode, describe_space, write_atomically
from agents.commandline import UsageError, parse, run, warn_of_wad
from evaluation.episodes import Episode, load_episode, save_episode
from evaluation.play import play_episodes, score_episodes
from evaluation.statistics import Score
from agents.run import find_policy
from envs import SCENARIOS, EnvConfig, EnvError, SharedVectorEnv
from envs.cfg import game_spec, strange_wads
from envs.registry import check_no_import, frames_per_env_step
from envs.replay import Moment, playback_fps, resimulate
from envs.video import draw_caption, half_blocks, write_gif, write_mp4

# What a user can cause; its message is one line that says what would work.
USER_ERRORS = (UsageError, EnvError, FileError)

_CONSOLE = Console()
_STANDSTILL_S = 0.5
RunPath = tyro.conf.Positional[Path]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files are read."""

    trust: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Import the package that a file names as its world's, as in `package:Name-v0`."""


@dataclass(frozen=True, kw_only=True)
class Scoring(Reading):
    """Which episodes are played, and how."""

    episodes: int = 100
    """How many episodes."""
    seed: int = 0
    """Seed of the first episode; the others follow. Training never plays these."""
    greedy: bool = False
    """Take the most likely actions instead of drawing them."""
    num_envs: int = 16
    """Environments in parallel."""
    json: Path | None = None
    """Also write the scores here."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_at_least_one(self, "episodes", "num_envs")
        _check_seed(self.seed)
        if self.json is not None and self.json.is_dir():
            raise ValueError(f"--json {self.json} is a folder; name a file")


@dataclass(frozen=True, kw_only=True)
class ScoreCommand(Scoring):
    """Play episodes at fixed seeds and report their native returns.

    Without --greedy, drawn and most likely actions are both scored. A run folder keeps the result
    as evaluation.json.
    """

    run: RunPath
    """A run folder (its best policy is scored) or a policy file."""


@dataclass(frozen=True, kw_only=True)
class ReplayCommand(Reading):
    """Play a recorded episode again, every frame of it, and write a video."""

    run: RunPath
    """A run folder or a policy file."""
    episode: str = "best"
    """best, worst or last of the recorded episodes, or a seed that was scored."""
    count: int = 1
    """How many episodes to show, one after another: the chosen one and those next to it."""
    seconds: float | None = None
    """Show only so much of each episode."""
    out: Path | None = None
    """Where to write: .mp4 or .gif. Default: replay.mp4 in the run folder."""
    size: str = "640x480"
    """Width and height in pixels, both even."""
    overlay: bool = True
    """Write action, return and value onto the picture."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_at_least_one(self, "count")
        if self.out is not None and self.out.suffix not in (".mp4", ".gif"):
            raise ValueError(f"--out {self.out}: a video is an .mp4 or a .gif")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds must be greater than 0, got {self.seconds}")


@dataclass(frozen=True, kw_only=True)
class WatchCommand(Reading):
    """Let a policy play new episodes and show them: in a window, or in the terminal without one."""

    run: RunPath
    """A run folder or a policy file."""
    episodes: int | None = None
    """How many episodes. Default: until Ctrl-C."""
    seed: int | None = None
    """Seed of the first episode. Default: a new one each time."""
    greedy: bool = False
    """Take the most likely actions instead of drawing them."""
    speed: float = 1.0
    """1 is the game's own speed, 2 twice that."""
    terminal: bool = False
    """Show it in the terminal even where there is a display."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.episodes is not None:
            _check_at_least_one(self, "episodes")
        if self.seed is not None:
            _check_seed(self.seed)
        if not self.speed > 0:
            raise ValueError(f"speed must be greater than 0, got {self.speed}")


@dataclass(frozen=True, kw_only=True)
class CompareCommand(Scoring):
    """Let several policies play the same episodes, and tabulate their native returns."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders or policy files, all trained in one world."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not self.runs:
            raise ValueError("name at least one run")


Command = (
    Annotated[ScoreCommand, tyro.conf.subcommand("score")]
    | Annotated[ReplayCommand, tyro.conf.subcommand("replay")]
    | Annotated[WatchCommand, tyro.conf.subcommand("watch")]
    | Annotated[CompareCommand, tyro.conf.subcommand("compare")]
)


def main(arguments: Sequence[str]) -> int:
    """Do what a command line says, and return the exit status."""
    command = parse(Command, arguments, program="python evaluate.py")
    with contextlib.suppress(KeyboardInterrupt):
        if isinstance(command, ScoreCommand):
            score(command)
        elif isinstance(command, ReplayCommand):
            replay(command)
        elif isinstance(command, WatchCommand):
            watch(command)
        else:
            compare(command)
        return 0
    return 130


def score(command: ScoreCommand) -> None:
    """Score a policy beside random actions and doing nothing, on the same episodes."""
    file, folder = find_policy(command.run)
    config = env_config(file, command.run, trust=command.trust)
    scores: dict[str, Score] = {}
    returns: dict[str, list[float]] = {}
    with vector_env(config, command.num_envs, command.episodes) as envs:
        check_fits(file, envs, command.run)
        if command.run.is_dir():
            for old in folder.episodes.glob("score-*.npz"):
                old.unlink()
        modes = {"greedy": True} if command.greedy else {"sampled": False, "greedy": True}
        players: list[tuple[str, Player, bool]] = [(m, file.policy, g) for m, g in modes.items()]
        players += [(name, player, False) for name, player in baselines(config, envs).items()]
        for name, player, greedy in players:
            with _CONSOLE.status(f"{name}: playing {command.episodes} episodes"):
                episodes = play(player, envs, command.episodes, command.seed, greedy)
            scores[name] = score_episodes(episodes)
            returns[name] = [episode.episode_return for episode in episodes]
            if player is file.policy and command.run.is_dir():
                for episode in episodes:
                    path = folder.episodes / f"score-{name}-{episode.seed:09d}.npz"
                    save_episode(path, episode, vars(config))
    print_scores(f"{config.env}: native return", scores, config)
    headline = next(iter(scores.values()))
    result = {
        "env": config.env,
        "policy": file.about,
        "protocol": protocol(config, command),
        **headline.as_dict(),
        "scores": {name: s.as_dict() for name, s in scores.items()},
        "returns": returns,
    }
    content = (json.dumps(result, indent=2) + "\n").encode()
    targets = [command.json] if command.json else []
    targets += [folder.path / "evaluation.json"] if command.run.is_dir() else []
    for path in targets:
        write_atomically(path, content)


def replay(command: ReplayCommand) -> None:
    """Write the video of recorded episodes, or of a new one where none is recorded."""
    size = parse_size(command.size)
    file, folder = find_policy(command.run)
    config = env_config(file, command.run, trust=command.trust)
    if command.run.is_dir() and any(folder.episodes.glob("*.npz")):
        chosen = choose_episodes(
            folder.episodes, command.episode, command.count, trust=command.trust
        )
    else:
        seed = int(command.episode) if command.episode.isdecimal() else 0
        with vector_env(config, 1, 1) as envs:
            check_fits(file, envs, command.run)
            played = play(file.policy, envs, command.count, seed)
        chosen = [(episode, config) for episode in played]
    out = command.out or folder.path / "replay.mp4"
    fps = playback_fps(config)

    def pictures() -> Iterator[Any]:
        for episode, world in chosen:
            total = 0.0
            moments = resimulate(world, episode.seed, episode.actions, size)
            for number, moment in enumerate(moments):
                total += moment.reward
                if command.seconds is None or number < command.seconds * fps:
                    image = captioned(moment, episode, total) if command.overlay else moment.image
                    yield image
            # The end stands still for a moment, so that it can be seen.
            yield from [image] * round(fps * _STANDSTILL_S)
            if not np.isclose(total, episode.episode_return, rtol=1e-6, atol=1e-6):
                _CONSOLE.print(
                    f"[bold red]the game differs from the recording:[/] the episode with "
                    f"seed {episode.seed} returned {total:g}, not {episode.episode_return:g}"
                )

    with _CONSOLE.status(f"writing {out}"):
        write = write_gif if out.suffix == ".gif" else write_mp4
        seconds = write(out, pictures(), fps)
    returns = ", ".join(f"{episode.episode_return:,.2f}" for episode, _ in chosen)
    _CONSOLE.print(f"{out}: {seconds:.1f} s, return {returns}")


def watch(command: WatchCommand) -> None:
    """Play episode after episode and show each at the game's speed."""
    file, _ = find_policy(command.run)
    config = env_config(file, command.run, trust=command.trust)
    fps = playback_fps(config) * command.speed
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    windowed = not command.terminal and any(name in os.environ for name in displays)
    show = show_window if windowed else show_terminal
    seed = int(time.time()) % 2**29 if command.seed is None else command.seed
    played = 0
    with vector_env(config, 1, 1) as envs:
        check_fits(file, envs, command.run)
        while command.episodes is None or played < command.episodes:
            (episode,) = play(file.policy, envs, 1, seed + played, command.greedy)
            total, started = 0.0, time.monotonic()
            moments = resimulate(config, episode.seed, episode.actions, (640, 480))
            for number, moment in enumerate(moments):
                total += moment.reward
                if not show(captioned(moment, episode, total)):
                    return
                time.sleep(max(0.0, started + number / fps - time.monotonic()))
            played += 1
            print(f"episode with seed {episode.seed}: return {episode.episode_return:,.2f}")


def compare(command: CompareCommand) -> None:
    """Score several policies on the same episodes, best first."""
    files = {str(path): find_policy(path)[0] for path in command.runs}
    configs = {
        name: env_config(file, Path(name), trust=command.trust) for name, file in files.items()
    }
    config = next(iter(configs.values()))
    worlds = {c.env for c in configs.values()}
    if len(worlds) > 1:
        raise UsageError(f"runs of one world can be compared, these are of {', '.join(worlds)}")
    skips = {frames_per_env_step(c) for c in configs.values()}
    if len(skips) > 1:
        raise UsageError(f"runs of one frame_skip can be compared, these have {sorted(skips)}")
    scores: dict[str, Score] = {}
    for name, file in files.items():
        with vector_env(configs[name], command.num_envs, command.episodes) as envs:
            check_fits(file, envs, Path(name))
            with _CONSOLE.status(f"{name}: playing {command.episodes} episodes"):
                episodes = play(file.policy, envs, command.episodes, command.seed, command.greedy)
            scores[name] = score_episodes(episodes)
    with vector_env(config, command.num_envs, command.episodes) as envs:
        for name, player in baselines(config, envs).items():
            scores[name] = score_episodes(play(player, envs, command.episodes, command.seed))
    ranked = dict(sorted(scores.items(), key=lambda item: -item[1].mean))
    print_scores(f"{config.env}: native return", ranked, config)
    if command.json:
        result = {
            "protocol": protocol(config, command),
            "greedy": command.greedy,
            "scores": {name: s.as_dict() for name, s in ranked.items()},
        }
        write_atomically(command.json, (json.dumps(result, indent=2) + "\n").encode())


def env_config(file: PolicyFile, run_path: Path, *, trust: bool) -> EnvConfig:
    """Read the world a policy was trained in, at its native skill and time limit.

    Whatever a policy was trained at, it is judged by the same task as every other.
    """
    config = world(file.env, run_path, trust=trust)
    return replace(config, skill=None, time_limit=None)


def world(fields: dict[str, Any], path: Path, *, trust: bool) -> EnvConfig:
    """Read the world that a file names; unless it is trusted, only what is imported anyway."""
    try:
        config = decode(EnvConfig, fields)
        if not trust:
            check_no_import(config.env)
        return config
    except (FileError, EnvError) as error:
        raise FileError(f"{path} names a world that cannot be: {error}") from error


@contextlib.contextmanager
def vector_env(config: EnvConfig, num_envs: int, episodes: int) -> Iterator[SharedVectorEnv]:
    """Open at most as many environments as there are episodes to play."""
    for wad in strange_wads(config.env):
        warn_of_wad(wad)
    with contextlib.closing(SharedVectorEnv(config, min(num_envs, episodes))) as envs:
        yield envs


def check_fits(file: PolicyFile, envs: SharedVectorEnv, run_path: Path) -> None:
    """Refuse a policy whose observations or actions are not this world's.

    Raises:
        FileError: If they differ.
    """
    specs = observation_specs(envs.single_observation_space, envs.metadata)
    if specs != file.policy.specs:
        raise FileError(f"{run_path} observes something else than {envs.config.env} shows")
    theirs, ours = file.policy.action_space, envs.single_action_space
    if describe_space(theirs) != describe_space(ours):
        raise FileError(f"{run_path} has actions {theirs}, {envs.config.env} has {ours}")


def baselines(config: EnvConfig, envs: SharedVectorEnv) -> dict[str, Player]:
    """Give the players that learned nothing; only in Doom is doing nothing an action."""
    players: dict[str, Player] = {"random": RandomPlayer(envs.single_action_space)}
    if game_spec(config.env) is not None:
        players["noop"] = NoopPlayer(envs.single_action_space)
    return players


def play(
    player: Player, envs: SharedVectorEnv, episodes: int, seed: int, greedy: bool = False
) -> list[Episode]:
    """Play episodes, in the order of their seeds."""
    played = play_episodes(player, envs, num_episodes=episodes, seed=seed, greedy=greedy)
    return sorted(played, key=lambda episode: episode.seed)


def protocol(config: EnvConfig, command: Scoring) -> dict[str, Any]:
    """State how scores came about."""
    spec = game_spec(config.env)
    skill = config.skill or (spec.settings.get("doom_skill", 3) if spec else None)
    return {
        "episodes": command.episodes,
        "seeds": [command.seed, command.seed + command.episodes - 1],
        "num_envs": min(command.num_envs, command.episodes),
        "reward": "native",
        "skill": skill,
        "frame_skip": frames_per_env_step(config),
        "time_limit_frames": config.time_limit or (spec.time_limit if spec else None),
    }


def print_scores(title: str, scores: dict[str, Score], config: EnvConfig) -> None:
    """Print scores as a table, with the reference where one is known."""
    table = Table(title=title, title_justify="left")
    table.add_column("player", overflow="fold")
    for column in ("mean", "95 % interval", "std", "median", "env steps"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, s in scores.items():
        interval = f"{s.ci_low:,.2f} to {s.ci_high:,.2f}"
        numbers = (f"{s.mean:,.2f}", interval, f"{s.std:,.2f}", f"{s.median:,.2f}")
        table.add_row(name, *numbers, f"{s.mean_length:,.0f}")
    scenario = SCENARIOS.get(config.env)
    if scenario and scenario.reference:
        reference = scenario.reference
        table.add_row("reference", f"{reference.mean:,.2f}")
        table.caption = f"reference: {reference.source}"
    _CONSOLE.print(table)


def choose_episodes(
    folder: Path, wanted: str, count: int, *, trust: bool
) -> list[tuple[Episode, EnvConfig]]:
    """Choose recorded episodes: best, worst or last ones, or scored ones from a seed on.

    Returns:
        Episodes, each with the world it was recorded in; drawn actions before most likely ones.

    Raises:
        UsageError: If there is no such episode.
    """
    files = sorted(folder.glob("score-sampled-*.npz")) or sorted(folder.glob("score-*.npz"))
    files = files or sorted(folder.glob("*.npz"))
    loaded = [load_episode(file) for file in files]
    recorded = [
        (episode, world(env, file, trust=trust))
        for file, (episode, env) in zip(files, loaded, strict=True)
    ]
    if wanted == "last":
        return recorded[-count:]
    if wanted in ("best", "worst"):
        recorded.sort(key=lambda pair: pair[0].episode_return, reverse=wanted == "best")
        return recorded[:count]
    for place, (episode, _) in enumerate(recorded):
        if str(episode.seed) == wanted:
            return recorded[place : place + count]
    seeds = sorted({episode.seed for episode, _ in recorded})
    raise UsageError(
        f"no episode {wanted!r} is recorded in {folder}; there are best, worst, last, and the "
        f"seeds {seeds[0]} to {seeds[-1]}"
    )


def parse_size(text: str) -> tuple[int, int]:
    """Read `640x480`.

    Raises:
        UsageError: If it is something else, or odd, which video cannot be.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    width, height = (int(n) for n in match.groups()) if match else (0, 0)
    if not (16 <= width <= 4096 and 16 <= height <= 4096) or width % 2 or height % 2:
        raise UsageError(f"--size {text}: give an even width and height, as in 640x480")
    return width, height


def captioned(moment: Moment, episode: Episode, total: float) -> Any:
    """Write what the policy did and expected onto a picture."""
    value = float(episode.values[min(moment.step, len(episode.values) - 1)])
    right = f"return {total:,.1f}   value {value:,.2f}"
    return draw_caption(moment.image, moment.action, right)


def show_window(image: Any) -> bool:
    """Show a picture in a window; tell whether to go on (q or Escape ends it)."""
    cv2.imshow("doomgrad", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)


def show_terminal(image: Any) -> bool:
    """Show a picture in the terminal with half blocks; Ctrl-C ends it."""
    size = os.get_terminal_size() if sys.stdout.isatty() else os.terminal_size((80, 24))
    columns = max(16, min(size.columns, (size.lines - 2) * 8 // 3))
    # Cursor home, not clear: redrawing in place does not flicker.
    sys.stdout.write("\x1b[H" + half_blocks(image, columns) + "\x1b[J\n")
    sys.stdout.flush()
    return True


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**29:
        raise ValueError(f"seed must be between 0 and 2^29 - 1, got {seed}")


def _check_at_least_one(command: Any, *names: str) -> None:
    for name in names:
        if getattr(command, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(command, name)}")


def command() -> None:
    """Run as the console script `doomgrad-evaluate`."""
    torch.set_grad_enabled(False)
    sys.exit(run(main, USER_ERRORS))


if __name__ == "__main__":
    command()
