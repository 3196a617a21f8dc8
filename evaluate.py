"""Score, replay, watch, compare and share what was trained: `python evaluate.py score RUN` etc.

RUN is a run folder or a policy file, or zoo/NAME for a policy that comes with the project.
`python evaluate.py COMMAND --help` lists a command's options.
"""

from __future__ import annotations

import os

# Before torch is imported: threads that wait for each other soon go to sleep, instead of taking the
# cores from the games. Fewer turns cost recurrent networks their speed, more cost the games.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import contextlib
import itertools
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.text import Text

from agents import Player
from agents.checkpoint import FileError, PolicyFile, write_atomically, write_json
from agents.commandline import UsageError, parse, run
from agents.export import BATCH_SIZES, save_onnx
from agents.run import RunFolder, find_policy
from envs import EnvError
from envs.fingerprint import fingerprint
from envs.registry import folder_name, is_imported
from envs.replay import pictures_per_env_step, playback_fps
from envs.video import write_gif, write_mp4
from evaluation import report
from evaluation.board import write_board
from evaluation.card import card, read_evaluation
from evaluation.compare import MODES, by_world, compare
from evaluation.entries import find_entries, locate
from evaluation.episodes import Recording, save_recording
from evaluation.film import pictures, side_by_side, track
from evaluation.hub import CARD, CONFIG, EVALUATION, FILM, POLICY, Repository, one_line
from evaluation.page import page
from evaluation.play import score_episodes
from evaluation.protocol import (
    MAX_SEED,
    Protocol,
    baselines,
    check_fits,
    native,
    play,
    vector_env,
)
from evaluation.replay import Shown, choose, read, recorded_episodes
from evaluation.show import opponent, play_new, show_live, show_terminal, window
from evaluation.statistics import Score
from evaluation.suite import SCENARIOS, Suite, train_suite
from evaluation.tables import print_comparison, print_scores, print_summary

# What a user can cause; its message is one line that says what would work.
USER_ERRORS = (UsageError, EnvError, FileError)

_CONSOLE = Console(markup=False, emoji=False)  # Names of files may look like either.
_STANDSTILL_S = 0.5
RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
RepositoryName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OWNER/NAME")]


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
    """Take only the most likely actions; else those that are drawn are scored too."""
    num_envs: int = 16
    """Environments in parallel."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where policies act. auto: the GPU if there is one."""
    json: Path | None = None
    """Also write the scores here."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_at_least_one(self, "episodes", "num_envs")
        _check_seed(self.seed)
        if self.json is not None and self.json.is_dir():
            raise ValueError(f"--json {self.json} is a folder; name a file")

    @property
    def protocol(self) -> Protocol:
        """Which episodes are played."""
        return Protocol(
            episodes=self.episodes, seed=self.seed, num_envs=self.num_envs, device=self.device
        )

    @property
    def modes(self) -> list[str]:
        """How actions are chosen."""
        return ["greedy"] if self.greedy else list(MODES)


@dataclass(frozen=True, kw_only=True)
class ScoreCommand(Scoring):
    """Play episodes at fixed seeds and report their native returns.

    A run folder keeps the result as evaluation.json, and the episodes to be replayed.
    """

    run: RunPath
    """A run folder (its best policy is scored) or a policy file."""


@dataclass(frozen=True, kw_only=True)
class ReplayCommand(Reading):
    """Play a recorded episode again, every frame of it, and write a video or a page about it."""

    run: RunPath
    """A run folder or a policy file; a file plays a new episode."""
    episode: str = "best"
    """best, worst, last, a seed that was scored, or a name in episodes/ such as training-first."""
    html: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write a page that shows the video beside what the policy expected and did, step by step."""
    against: Path | None = None
    """Another run or policy, shown beside this one on the same seed."""
    count: int = 1
    """How many episodes to show, one after another: the chosen one and those next to it."""
    seconds: float | None = None
    """Show only so much of each episode."""
    out: Path | None = None
    """Where to write: .mp4, .gif or .html. None: replay.mp4 or replay.html in the run folder."""
    size: str = "640x480"
    """Width and height in pixels, both even."""
    overlay: bool = True
    """Write return, action, probabilities and values onto the picture of a video."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _check_at_least_one(self, "count")
        suffixes = (".html",) if self.html else (".mp4", ".gif")
        if self.out is not None and self.out.suffix not in suffixes:
            kind = "a page is an .html" if self.html else "a video is an .mp4 or a .gif"
            raise ValueError(f"--out {self.out}: {kind}")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds must be greater than 0, got {self.seconds}")
        if self.html and (self.count > 1 or self.seconds):
            raise ValueError("a page shows one whole episode: leave out --count and --seconds")


@dataclass(frozen=True, kw_only=True)
class WatchCommand(Reading):
    """Let a policy play new episodes and show them: in a window, or in the terminal without one."""

    run: RunPath
    """A run folder or a policy file."""
    against: Path | None = None
    """Another run or policy, shown beside this one on the same seeds."""
    episodes: int | None = None
    """How many episodes. None: until Ctrl-C."""
    seed: int | None = None
    """Seed of the first episode. None: a new one each time."""
    greedy: bool = False
    """Take the most likely actions instead of drawing them."""
    speed: float = 1.0
    """1 is the game's own speed, 2 twice that."""
    terminal: bool = False
    """Show it in the terminal even where there is a display."""
    overlay: bool = True
    """Write return, action, probabilities and values onto the picture."""

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
    """Let several policies play the same episodes, and tell which are better.

    Folders that differ in -seedN are seeds of one entry; random and noop always play along. Tables,
    pictures and TensorBoard's files go to a folder for each world.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
    ]
    """Run folders, policy files, or patterns for them in quotes."""
    out: Path = Path("runs/compare")
    """The folder to write to."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not self.runs:
            raise ValueError("name at least one run")
        _check_folder(self.out)


@dataclass(frozen=True, kw_only=True)
class SuiteCommand(Scoring):
    """Train agents on scenarios with several seeds, score them all, and write one table.

    The same command goes on where it stopped.
    """

    scenarios: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[ENV ...]")
    ] = SCENARIOS
    """Worlds, each trained with its preset."""
    agents: tuple[str, ...] = ("ppo",)
    """Who learns."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    total_env_steps: int | None = None
    """How long to train. None: as long as the preset says."""
    out: Path = Path("runs/suite")
    """The folder to write to."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        _check_folder(self.out)
        for name in ("scenarios", "agents", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name}: name at least one")
        if not all(0 <= seed < 2**31 for seed in self.seeds):
            raise ValueError("seeds must be between 0 and 2^31 - 1")
        if self.total_env_steps is not None:
            _check_at_least_one(self, "total_env_steps")


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Write a policy as one file that other programs can play with.

    It is checked to compute what the policy computes.
    """

    run: RunPath
    """A run folder (its best policy is exported) or a policy file."""
    onnx: Path | None = None
    """Where to write, as .onnx. None: policy.onnx in the run folder."""

    def __post_init__(self) -> None:
        """Check the file's name."""
        if self.onnx is not None and (self.onnx.suffix != ".onnx" or self.onnx.is_dir()):
            raise ValueError(f"--onnx {self.onnx}: name a file, as in policy.onnx")


@dataclass(frozen=True, kw_only=True)
class PushCommand(Reading):
    """Show a run on the Hugging Face hub: its policy, configuration, score, film and a card.

    What it lacks of these is made first, as by score and replay.
    """

    run: RunPath
    """A run folder."""
    repository: RepositoryName
    """On the hub; made if there is none."""
    private: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only for the owner's eyes."""


@dataclass(frozen=True, kw_only=True)
class PullCommand(Reading):
    """Fetch a policy from the Hugging Face hub, to be watched, scored and compared."""

    repository: RepositoryName
    """On the hub."""
    out: Path | None = None
    """The folder to make. None: hub/OWNER--NAME."""
    revision: str | None = None
    """A branch, a tag or a commit. None: the newest."""


Command = (
    Annotated[ScoreCommand, tyro.conf.subcommand("score")]
    | Annotated[ReplayCommand, tyro.conf.subcommand("replay")]
    | Annotated[WatchCommand, tyro.conf.subcommand("watch")]
    | Annotated[CompareCommand, tyro.conf.subcommand("compare")]
    | Annotated[SuiteCommand, tyro.conf.subcommand("suite")]
    | Annotated[ExportCommand, tyro.conf.subcommand("export")]
    | Annotated[PushCommand, tyro.conf.subcommand("push")]
    | Annotated[PullCommand, tyro.conf.subcommand("pull")]
)


def main(arguments: Sequence[str]) -> int:
    """Do what a command line says, and return the exit status."""
    command = parse(Command, arguments, program="python evaluate.py", description=__doc__)
    with contextlib.suppress(KeyboardInterrupt):
        if isinstance(command, ScoreCommand):
            score(command)
        elif isinstance(command, ReplayCommand):
            replay(command)
        elif isinstance(command, WatchCommand):
            watch(command)
        elif isinstance(command, CompareCommand):
            compare_runs(command)
        elif isinstance(command, SuiteCommand):
            suite(command)
        elif isinstance(command, ExportCommand):
            export(command)
        elif isinstance(command, PushCommand):
            push(command)
        else:
            pull(command)
        return 0
    return 130


def score(command: ScoreCommand) -> None:
    """Score a policy beside random actions and doing nothing, on the same episodes."""
    file, folder = find_policy(locate(command.run))
    joins_run = is_run(command.run, folder)
    config = native(file, command.run, trust=command.trust)
    protocol, game = command.protocol, fingerprint(config.env)
    scores: dict[str, Score] = {}
    returns: dict[str, list[float]] = {}
    with vector_env(config, protocol.num_envs, protocol.episodes) as envs:
        check_fits(file, envs, command.run)
        if joins_run:
            for old in folder.episodes.glob("score-*.npz"):
                old.unlink()
        players: list[tuple[str, Player | PolicyFile]] = [(mode, file) for mode in command.modes]
        for name, player in (*players, *baselines(envs).items()):
            with _CONSOLE.status(f"{name}: playing {command.episodes} episodes"):
                episodes = play(player, envs, protocol, greedy=MODES.get(name, False))
            scores[name] = score_episodes(episodes)
            returns[name] = [episode.episode_return for episode in episodes]
            if player is file and joins_run:
                for episode in episodes:
                    path = folder.episodes / f"score-{name}-{episode.seed:09d}.npz"
                    recording = Recording(episode=episode, env=vars(config), game=game)
                    save_recording(path, recording)
    print_scores(_CONSOLE, scores, config.env)
    print(protocol.sentence(config))
    headline = next(iter(scores.values()))
    result = {
        "env": config.env,
        "policy": asdict(file.about),
        "protocol": protocol.facts(config),
        **headline.as_dict(),
        "scores": {name: s.as_dict() for name, s in scores.items()},
        "returns": returns,
    }
    targets = [command.json] if command.json else []
    targets += [folder.path / "evaluation.json"] if joins_run else []
    for path in targets:
        write_json(path, result)


def is_run(run: Path, folder: RunFolder) -> bool:
    """Tell whether a run folder was named, whose own results and recordings are meant.

    Of a policy file in a run folder nobody knows whether it is the run's best.
    """
    return folder.holds_run and not run.is_file()


def home(run: Path, folder: RunFolder) -> Path:
    """Choose the folder for what is made of a run or a policy file, if none is asked for."""
    # What comes with the project is left as it came.
    return folder.path if folder.holds_run or run.is_file() else Path()


def replay(command: ReplayCommand) -> None:
    """Write a video of recorded episodes, or a page about one."""
    size = parse_size(command.size)
    shown, folder = shown_episodes(command)
    if command.against:
        shown += [opponent(command.against, episode, command.trust) for episode in shown]
    name = "replay.html" if command.html else "replay.mp4"
    out = command.out or home(command.run, folder) / name
    fps = playback_fps(shown[0].config)
    with _CONSOLE.status(f"writing {out}"):
        if command.html:
            write_page(out, shown, size, fps)
        else:
            write = write_gif if out.suffix == ".gif" else write_mp4
            write(out, film(command, shown, size, fps), fps)
    returns = ", ".join(f"{s.name} {s.episode.episode_return:,.2f}" for s in shown)
    _CONSOLE.print(f"{out}: return of {returns}", highlight=False)


def shown_episodes(command: ReplayCommand) -> tuple[list[Shown], RunFolder]:
    """Choose recorded episodes of a run, or let a policy file play new ones.

    Raises:
        UsageError: If nothing is recorded, or nothing of that name.
    """
    file, folder = find_policy(locate(command.run))
    name, trust = str(command.run), command.trust
    if is_run(command.run, folder):
        named = folder.episodes / f"{command.episode}.npz"
        if re.fullmatch(r"[\w-]+", command.episode) and named.is_file():
            return [read(named, name=name, trust=trust)], folder
        recorded = recorded_episodes(folder.episodes, name=name, trust=trust)
        if not recorded:
            raise UsageError(
                f"{name} holds no recorded episodes; record some: python evaluate.py score {name}"
            )
        return choose(recorded, command.episode, command.count), folder
    seed = int(command.episode) if command.episode.isdecimal() else 0
    protocol = Protocol(episodes=command.count, seed=seed, num_envs=1)
    return play_new(file, command.run, protocol, greedy=False, trust=trust), folder


def film(
    command: ReplayCommand, shown: Sequence[Shown], size: tuple[int, int], fps: float
) -> Iterator[Any]:
    """Show episodes one after another, or each beside its opponent's."""
    half = len(shown) // 2 if command.against else len(shown)
    for number in range(half):
        films = [pictures(s, size, overlay=command.overlay) for s in shown[number::half]]
        for count, image in enumerate(side_by_side(films)):
            if command.seconds is None or count < command.seconds * fps:
                yield image
        # The end stands still for a moment, so that it can be seen.
        yield from [image] * round(fps * _STANDSTILL_S)


def write_page(out: Path, shown: Sequence[Shown], size: tuple[int, int], fps: float) -> None:
    """Write the page about an episode, or about the same one as two policies played it."""
    config = shown[0].config
    tracks = []
    for s in shown:
        how = "greedy" if s.episode.greedy else "sampled"
        tracks.append(track(s, f"seed {s.episode.seed} · {how}", size, fps))
    each = pictures_per_env_step(config)
    content = page(config.env, tracks, fps=fps, pictures_per_step=each)
    write_atomically(out, content.encode())


def watch(command: WatchCommand) -> None:
    """Play episode after episode and show each at the game's speed."""
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    windowed = not command.terminal and any(name in os.environ for name in displays)
    seed = int(time.time()) % MAX_SEED if command.seed is None else command.seed
    file, _ = find_policy(locate(command.run))
    count = itertools.count() if command.episodes is None else range(command.episodes)
    with window() if windowed else contextlib.nullcontext(show_terminal) as show:
        for played in count:
            protocol = Protocol(episodes=1, seed=(seed + played) % MAX_SEED, num_envs=1)
            shown = play_new(
                file, command.run, protocol, greedy=command.greedy, trust=command.trust
            )
            if command.against:
                shown.append(opponent(command.against, shown[0], command.trust))
            if not show_live(shown, show, speed=command.speed, overlay=command.overlay):
                return
            for s in shown:
                returned = f"{s.episode.episode_return:,.2f}"
                print(f"{s.name}: episode with seed {s.episode.seed}: return {returned}")


def compare_runs(command: CompareCommand) -> None:
    """Compare policies, world by world."""
    entries = find_entries(command.runs, trust=command.trust)
    comparisons = []
    worlds = by_world(entries)
    # Two files' worlds may be called alike.
    names = report.folder_names(folder_name(inside[0].config.env) for inside in worlds)
    for inside, name in zip(worlds, names, strict=True):
        with _CONSOLE.status("") as status:
            comparison = compare(
                inside,
                command.protocol,
                modes=command.modes,
                say=lambda who: status.update(Text(f"{who}: playing {command.episodes} episodes")),
            )
        print_comparison(_CONSOLE, comparison)
        folder = command.out / name
        report.write_report(comparison, folder)
        write_board(comparison, folder)
        print(f"written to {folder}: compare.md, compare.json, pictures, and for TensorBoard\n")
        comparisons.append(comparison)
    if len(comparisons) > 1:
        report.write_summary(comparisons, command.out)
        print_summary(_CONSOLE, comparisons)
        print(f"written to {command.out}: summary.md, summary.json\n")
    if command.json:
        write_json(command.json, [report.as_dict(comparison) for comparison in comparisons])
    print(f"see it:  tensorboard --logdir {command.out} --samples_per_plugin scalars=100000")


def suite(command: SuiteCommand) -> None:
    """Train what is not yet trained, then compare it all."""
    plan = Suite(
        folder=command.out,
        scenarios=command.scenarios,
        agents=command.agents,
        seeds=command.seeds,
        total_env_steps=command.total_env_steps,
    )
    runs = train_suite(plan)
    names = ("episodes", "seed", "greedy", "num_envs", "device", "json")
    fields = {name: getattr(command, name) for name in names}
    out = command.out / "compare"
    # Their worlds were named on the command line, and imported for the training.
    compare_runs(CompareCommand(runs=tuple(map(str, runs)), out=out, trust=True, **fields))


def export(command: ExportCommand) -> None:
    """Write a policy as ONNX, to play the world that it is scored in."""
    file, folder = find_policy(locate(command.run))
    # Nothing is imported for a world that is only written down.
    config = native(file, command.run, trust=True)
    out = command.onnx or home(command.run, folder) / "policy.onnx"
    with _CONSOLE.status(f"writing {out}"):
        found = save_onnx(out, file, env=asdict(config))
    print(f"{out}: {out.stat().st_size:,} bytes")
    sizes = ", ".join(map(str, BATCH_SIZES))
    largest = ", ".join(f"{name} {difference:.1e}" for name, difference in found.items())
    print(f"largest difference from PyTorch, at batches of {sizes}: {largest}")


def push(command: PushCommand) -> None:
    """Push a run to the hub, with its score, a film and a card."""
    repository = Repository(command.repository)
    repository.check_token()
    file, folder = find_policy(locate(command.run))
    if not is_run(command.run, folder):
        raise UsageError(f"{command.run} is no run folder; push one that train.py wrote")
    config = native(file, command.run, trust=command.trust)
    if config.env.lower().endswith((".cfg", ".wad")):
        raise UsageError(f"{config.env} is a file that nobody else has; its policies stay here")
    record = folder.read_record()
    scored, filmed = folder.path / EVALUATION, folder.path / FILM
    evaluation = read_evaluation(scored, file, config)
    if evaluation is None:
        score(ScoreCommand(run=command.run, trust=command.trust))
        evaluation = read_evaluation(scored, file, config)
        assert evaluation is not None
    if not filmed.is_file():
        replay(ReplayCommand(run=command.run, trust=command.trust))
    readme = card(
        repository=command.repository,
        folder=str(repository.folder),
        config=config,
        about=file.about,
        record=record,
        evaluation=evaluation,
        trust=" --trust" if is_imported(config.env) else "",
    )
    policy = folder.chosen_policy_file
    assert policy is not None
    files = {POLICY: policy, CONFIG: folder.config_file, EVALUATION: scored, FILM: filmed}
    with _CONSOLE.status(f"pushing to {command.repository}"):
        url = repository.push({**files, CARD: readme.encode()}, private=command.private)
    print(f"pushed to {url}; others get it by: python evaluate.py pull {command.repository}")


def pull(command: PullCommand) -> None:
    """Fetch a policy from the hub, and say what can be done with it."""
    repository = Repository(command.repository)
    out = command.out or repository.folder
    with _CONSOLE.status(f"pulling {command.repository}"):
        file = repository.pull(out, revision=command.revision, trust=command.trust)
    about, env = file.about, file.env["env"]
    learned = f"{env}, learned by {about.agent} in {about.env_steps:,} env steps"
    print(f"{out}: {one_line(learned)}")
    trust = " --trust" if is_imported(env) else ""
    print(f"watch it:  python evaluate.py watch {out}{trust}")
    print(f"score it:  python evaluate.py score {out}{trust}")


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


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be between 0 and 2^29 - 1, got {seed}")


def _check_at_least_one(command: Any, *names: str) -> None:
    for name in names:
        if getattr(command, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(command, name)}")


def _check_folder(out: Path) -> None:
    if out.is_file():
        raise ValueError(f"--out {out} is a file; name a folder")


def command() -> None:
    """Run as the console script `doomgrad-evaluate`."""
    torch.set_grad_enabled(False)
    sys.exit(run(main, USER_ERRORS))


if __name__ == "__main__":
    command()
