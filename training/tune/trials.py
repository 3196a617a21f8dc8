"""The trials of a search: training runs, each of which is scored or stopped early."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.logger import KVWriter

from agents.search_space import SearchSpace
from envs import EnvError, StoppedError
from evaluation.playing import play_episodes, score_episodes
from evaluation.printing import print_line
from evaluation.protocol import vector_env
from evaluation.seeds import TUNING
from evaluation.statistics import Score
from storage.files import FileError
from storage.run_folder import RunFolder, find_policy
from training.errors import TrainingError
from training.signals import stops_after
from training.tune.search import Plan, SearchResults, Trial, open_study

_SCORING_FACTOR = 5  # A score is over this many times the episodes of an evaluation in training.
_SHOWN_TRIALS = 4  # Together with the first trial, they fit into 80 columns.
_MAX_FAILED_IN_A_ROW = (
    3  # After this many failed trials, their values are unlikely to be the cause.
)


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """Search for hyper-parameters.

    Raises:
        ValueError: If a value is out of range.
    """

    tune: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Search the agent's hyper-parameters that are not given as flags, starting with the values of
    the preset. The folder is runs/ENV/AGENT-tune or --run-dir. The same command resumes the search;
    several processes that run it at once share the work."""
    trials: int = 30
    """With --tune: number of training runs, over all processes; failed ones are not counted."""
    search: tuple[str, ...] = ()
    """With --tune: search only these fields, starting with the values given as flags."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1, got {self.trials}")
        if self.search and not self.tune:
            raise ValueError("--search needs --tune; add it, or leave out --search")


def choose_space(
    space: SearchSpace, start: Mapping[str, Any], given: set[str], named: Sequence[str]
) -> SearchSpace:
    """Return the part of a search space that is searched, widened to include the start values.

    Args:
        space: the agent's search space.
        start: the values to start with, by name.
        given: names of fields that were given as flags; they are searched only if they are named.
        named: names of the fields to search; empty: all that were not given as flags.

    Raises:
        TrainingError: If a field cannot be searched, or none is left.
    """
    names = [name.replace("-", "_") for name in named] or [n for n in space if n not in given]
    for name in names:
        if name not in space:
            raise TrainingError(f"--search {name}: choose from {', '.join(space)}")
    if not names:
        raise TrainingError(
            "every hyper-parameter is given as a flag; name those to search with --search"
        )
    return {name: space[name].including(start[name]) for name in names}


Train = Callable[[Mapping[str, Any], RunFolder, KVWriter], None]
"""Trains with hyper-parameters in a run folder, until a signal; the writer receives each record."""


def tune(
    plan: Plan,
    train: Train,
    signals: Sequence[int],
    *,
    fresh: bool,
    failures: tuple[type[Exception], ...],
) -> SearchResults:
    """Run trials until there are enough of them, or until a signal, and return the results.

    Args:
        plan: what to search.
        train: trains with the hyper-parameters of a trial.
        signals: is filled when the search is to stop; its trial is left unfinished, to be resumed.
        fresh: start over.
        failures: errors by which `train` reports that a training run failed.

    Raises:
        TrainingError: If several trials in a row fail, or if another process searches in the
            folder although the search is to start over.
        FileError: If the folder holds another search, or is damaged.
    """
    failed = 0
    with open_study(plan, fresh=fresh) as study:
        while not signals and (trial := study.take()):
            error = _run_trial(trial, plan, train, signals, (EnvError, FileError, *failures))
            failed = failed + 1 if error else 0
            if failed == _MAX_FAILED_IN_A_ROW:
                raise TrainingError(
                    f"{failed} trials in a row failed, the last: {error}"
                ) from error
        return study.results()


def _run_trial(
    trial: Trial,
    plan: Plan,
    train: Train,
    signals: Sequence[int],
    failures: tuple[type[Exception], ...],
) -> Exception | None:
    """Train with a trial's hyper-parameters, score the policy, and return an error if it failed."""
    values = ", ".join(f"{name} {value}" for name, value in trial.values.items())
    _say()
    _say(f"trial {trial.number}: {values}")
    try:
        train(trial.values, trial.folder, _Reporter(trial, plan))
        score = None if signals else _score(trial.folder, plan, signals)
    except _PrunedError:
        trial.prune()
        _say(
            f"trial {trial.number} is stopped early: at this point, half of the other trials were "
            "better"
        )
    except failures as error:
        trial.fail()
        _say(f"trial {trial.number} failed: {error}")
        return error
    else:
        if score is None:
            trial.suspend()
        else:
            trial.complete(score)
            _say(
                f"trial {trial.number}: mean return {score.mean:,.2f} over {score.episodes} fresh "
                "episodes"
            )
    return None


class _PrunedError(Exception):
    """A training run is stopped early."""


class _Reporter(KVWriter):
    """Reports the evaluations that a trial logs, and stops it early if other trials are better."""

    def __init__(self, trial: Trial, plan: Plan) -> None:
        self._trial, self._plan = trial, plan

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Report an evaluation, if the record holds one.

        Raises:
            _PrunedError: If the training is to be stopped early; never at its end.
        """
        if "eval/mean_reward" in key_values:
            part = step // self._plan.eval_every
            is_promising = self._trial.report(part, float(key_values["eval/mean_reward"]))
            if not is_promising and step < self._plan.total_env_steps:
                raise _PrunedError

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _score(folder: RunFolder, plan: Plan, signals: Sequence[int]) -> Score | None:
    """Return the score of a trial's best policy with sampled actions, or None after a signal."""
    file, _ = find_policy(folder.path, trust=True)
    num_episodes = _SCORING_FACTOR * plan.eval_episodes
    with (
        contextlib.suppress(StoppedError),
        vector_env(plan.env, plan.num_envs, num_episodes, stops_after(signals)) as envs,
    ):
        played = play_episodes(
            file.policy, envs, num_episodes=num_episodes, seed=TUNING, greedy=False
        )
        episodes = list(itertools.takewhile(lambda _: not signals, played))
    return None if signals else score_episodes(sorted(episodes, key=lambda e: e.seed))


def _say(line: str = "") -> None:
    print_line(line, sys.stderr)


def print_results(console: Console, results: SearchResults) -> None:
    """Print the best trials of a search and its first trial, one in each column."""
    words = {"fail": "failed", "running": "unfinished"}
    counts = ", ".join(f"{n} {words.get(s, s)}" for s, n in sorted(results.states.items()))
    best = list(results.complete[:_SHOWN_TRIALS])
    if not best:
        console.print(f"no trial is complete yet ({counts or 'none was started'})")
        return
    best += [result for result in results.complete[_SHOWN_TRIALS:] if result.number == 0]
    table = Table(title=f"The best trials ({counts})", title_justify="left")
    table.add_column("trial", no_wrap=True)
    for result in best:
        name = str(result.number) if result.number else "start"
        table.add_column(name, justify="right", overflow="fold")
    table.add_row("mean return", *(f"{result.mean:,.2f}" for result in best))
    intervals = (f"{result.ci_low:,.2f} to {result.ci_high:,.2f}" for result in best)
    table.add_row("95 % interval", *intervals, end_section=True)
    for name in best[0].values:
        table.add_row(name, *(str(result.values[name]) for result in best))
    table.caption = (
        f"over {best[0].episodes} episodes that chose no weights, but the order of the trials: the "
        "best of many is partly luck"
    )
    table.caption_justify = "left"
    console.print(table)
