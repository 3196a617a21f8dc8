"""`evaluate.py score`: play episodes with fixed seeds and report their native returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from commands.commandline import UsageError
from commands.options import CONSOLE, RunPath, ScoringOptions
from evaluation.printing import print_line
from storage.files import check_writable

if TYPE_CHECKING:
    from pathlib import Path

    from envs import EnvConfig
    from storage.recording import Episode
    from storage.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ScoringOptions):
    """Play episodes with fixed seeds and report their native returns.

    In a run folder, the result is saved as evaluation.json, and the episodes for replays.
    """

    run: RunPath
    """A run folder (its best policy is scored), a policy file, or a perception without one."""


def run(options: ScoreOptions) -> None:
    """Score a policy, beside random actions and doing nothing, on the same episodes."""
    from agents import Player
    from evaluation.compare import MODES
    from evaluation.entries import is_run, locate
    from evaluation.playing import score_episodes
    from evaluation.protocol import baselines, check_fits, counted, native, play, vector_env
    from evaluation.report.terminal import print_scores
    from evaluation.statistics import Score
    from storage.files import write_json
    from storage.onnx_file import PlayableFile
    from storage.perception_file import perception_file
    from storage.run_folder import find_player

    options.check_writable()
    if path := perception_file(locate(options.run)):
        score_perception(path, options)
        return
    file, folder = find_player(locate(options.run), trust=options.trust)
    belongs_to_run = is_run(options.run, folder)
    if belongs_to_run:
        check_writable(folder.episodes)
    config = native(file, options.run, trust=options.trust)
    protocol = options.protocol
    scores: dict[str, Score] = {}
    returns: dict[str, list[float]] = {}
    recorded: dict[str, list[Episode]] = {}
    with vector_env(config, protocol.num_envs, protocol.episodes) as envs:
        check_fits(file, envs, options.run)
        players: list[tuple[str, Player | PlayableFile]] = [(mode, file) for mode in options.modes]
        for name, player in (*players, *baselines(envs).items()):
            with CONSOLE.status(f"{name}: playing {counted(options.episodes, 'episode')}"):
                episodes = play(player, envs, protocol, greedy=MODES.get(name, False))
            scores[name] = score_episodes(episodes)
            returns[name] = [episode.episode_return for episode in episodes]
            if player is file and belongs_to_run:
                recorded[name] = episodes
    # First printed, then written: the disk may be full by now.
    print_scores(CONSOLE, scores, config.env)
    print_line(protocol.sentence(config))
    headline = next(iter(scores.values()))
    result = {
        "env": config.env,
        "policy": asdict(file.about),
        "protocol": protocol.facts(config),
        **headline.as_dict(),
        "scores": {name: score.as_dict() for name, score in scores.items()},
        "returns": returns,
    }
    if options.json:
        write_json(options.json, result)
    if belongs_to_run:
        write_json(folder.evaluation_file, result)
        replace_recordings(folder, config, recorded)


def score_perception(path: Path, options: ScoreOptions) -> None:
    """Score a perception on its test set.

    Args:
        path: its file; the result is written beside it.
        options: the options.

    Raises:
        UsageError: If an option is given that only policies have.
        FileError: If the file or the data are damaged.
    """
    from rich.table import Table

    from agents.device import choose_device
    from storage.files import write_json
    from storage.perception_file import load_perception
    from storage.run_folder import EVALUATION, SCORED
    from training.supervised.pictures import write_picture
    from training.supervised.scoring import as_json, rebuild, score
    from training.supervised.task import count

    for name in ("episodes", "seed", "greedy", "num_envs"):
        if getattr(options, name) != getattr(ScoreOptions, name):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is for policies, and {path} is a perception without one")
    file = load_perception(path)
    task, network = rebuild(file, choose_device(options.device))
    with CONSOLE.status(f"see:{file.trained.task}: looking at the test set"):
        measures, test, statistics = score(task, network, file.trained.source)
    size = count(test)
    title = f"see:{file.trained.task}: {size:,} examples of the test set"
    table = Table(title=title, title_justify="left")
    table.add_column("measure", overflow="fold")
    for column in ("value", "95 % interval", "trivial baseline"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, m in measures.items():
        table.add_row(name, f"{m.value:.4g}", f"{m.low:.4g} to {m.high:.4g}", f"{m.baseline:.4g}")
    CONSOLE.print(table)
    result = {
        "task": file.task,
        "trained": asdict(file.trained),
        "test_examples": size,
        "measures": as_json(measures),
    }
    for target in (options.json, path.parent / EVALUATION):
        if target:
            write_json(target, result)
    for name, picture in task.pictures(network, test, statistics).items():
        written = path.parent / f"{SCORED}{name}.png"
        write_picture(written, picture)
        print_line(f"{name}: {written}")


def replace_recordings(
    folder: RunFolder, config: EnvConfig, recorded: Mapping[str, Sequence[Episode]]
) -> None:
    """Record episodes in a run folder, and then remove those of earlier scores.

    Args:
        folder: the run folder.
        config: the environment.
        recorded: the episodes by mode.
    """
    from envs.fingerprint import episode_fingerprint, fingerprint
    from storage.recording import Recording, save_recording

    game, written = fingerprint(config.env), set()
    for name, episodes in recorded.items():
        for episode in episodes:
            path = folder.episodes / f"score-{name}-{episode.seed:09d}.npz"
            own = episode_fingerprint(config, episode.seed, game)
            save_recording(path, Recording(episode=episode, env=asdict(config), game=own))
            written.add(path)
    for old in set(folder.episodes.glob("score-*.npz")) - written:
        old.unlink()
