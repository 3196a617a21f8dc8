"""Which episodes of a run or a policy are shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from evaluation.entries import is_run, locate
from evaluation.errors import EvaluationError
from evaluation.protocol import Protocol
from evaluation.replay.live import play_new
from evaluation.replay.recorded import (
    HIGHLIGHT,
    ShownEpisode,
    by_interest,
    choose,
    is_long,
    read,
    recorded_episodes,
    showable,
)
from evaluation.seeds import MAX_SCORING
from storage.onnx_file import PlayableFile
from storage.run_folder import RunFolder, find_player

_TRIES = 10  # Episodes played with a policy file until one is long enough to be shown.


def chosen_episodes(
    run: Path, wanted: str, count: int, *, trust: bool
) -> tuple[list[ShownEpisode], RunFolder]:
    """Choose recorded episodes of a run, or play new ones with a policy file.

    Args:
        run: run folder or policy file, as it was named.
        wanted: `highlight`, `best`, `worst`, `last`, a seed, or the name of a recording.
        count: number of episodes.
        trust: whether packages that files name may be imported.

    Returns:
        The episodes, and the folder for results about the run.

    Raises:
        EvaluationError: If nothing is recorded, or no episode of that name.
    """
    file, folder = find_player(locate(run), trust=trust)
    name = str(run)
    if is_run(run, folder):
        named = folder.episodes / f"{wanted}.npz"
        if re.fullmatch(r"[\w-]+", wanted) and named.is_file():
            return [read(named, name=name, trust=trust)], folder
        recorded = recorded_episodes(folder.episodes, name=name, trust=trust)
        if not recorded:
            raise _nothing_recorded(name)
        return choose(recorded, wanted, count), folder
    if wanted == HIGHLIGHT and count == 1:
        return [_first_long(file, run, trust=trust)], folder
    if not wanted.isdecimal() and wanted != HIGHLIGHT:
        raise EvaluationError(
            f"--episode {wanted}: {name} has no recorded episodes; give a seed, as in --episode 17"
        )
    seed = int(wanted) if wanted.isdecimal() else 0
    if seed > MAX_SCORING:
        raise EvaluationError(f"--episode {wanted}: seeds of episodes are at most 2^29 - 1")
    protocol = Protocol(episodes=count, seed=seed, num_envs=1)
    return play_new(file, run, protocol, greedy=False, trust=trust), folder


def _nothing_recorded(name: str) -> EvaluationError:
    return EvaluationError(
        f"{name} holds no recorded episodes; record some: "
        f"python evaluate.py score {shlex.quote(name)}"
    )


def _first_long(file: PlayableFile, run: Path, *, trust: bool) -> ShownEpisode:
    """Play seeds 0, 1, ... until an episode is long enough; else return the longest."""
    played: list[ShownEpisode] = []
    for seed in range(_TRIES):
        protocol = Protocol(episodes=1, seed=seed, num_envs=1)
        played += play_new(file, run, protocol, greedy=False, trust=trust)
        if is_long(played[-1]):
            break
    return by_interest(played)[0]


def story_of(run: Path, *, trust: bool) -> list[tuple[str, ShownEpisode]]:
    """Choose recordings that show how an agent learned, each with a caption.

    They are the first episode of the training, the highlights of the first, the middle and the last
    recorded evaluation, and the worst and the best episode of the training.

    Args:
        run: the run folder.
        trust: whether packages that recordings name may be imported.

    Raises:
        EvaluationError: If nothing is recorded.
    """
    folder, name = RunFolder(locate(run)).episodes, str(run)
    files = showable(folder)
    evaluations: dict[int, list[Path]] = {}
    for file in files:
        if evaluated := re.match(r"evaluation-(\d+)-", file.stem):
            evaluations.setdefault(int(evaluated[1]), []).append(file)
    at = sorted(evaluations)
    kept = dict.fromkeys([*at[:1], *at[len(at) // 2 : len(at) // 2 + 1], *at[-1:]])
    named = {file.stem: file for file in files}
    story = []
    for stem, caption in (
        ("training-first", "first episode of the training that ended"),
        *((steps, f"after {steps:,} env steps") for steps in kept),
        ("training-worst", "worst episode of the training"),
        ("training-best", "best episode of the training"),
    ):
        if isinstance(stem, int):
            found = [read(file, name=name, trust=trust) for file in evaluations[stem]]
            story.append((caption, by_interest(found)[0]))
        elif stem in named:
            story.append((caption, read(named[stem], name=name, trust=trust)))
    if not story:
        raise _nothing_recorded(name)
    return story
