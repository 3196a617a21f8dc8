"""Searching hyper-parameters: trainings that differ in them, given up early or scored."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.logger import KVWriter

from agents.checkpoint import FileError
from agents.commandline import UsageError
from agents.run import RunFolder, find_policy
from agents.search import SearchSpace
from envs import EnvError
from evaluation.play import play_episodes, score_episodes
from evaluation.protocol import vector_env
from evaluation.statistics import Score
from evaluation.study import Findings, Plan, Trial, open_study

# Trials are compared on episodes that no training saw (from 2^30), no evaluation during training,
# which chose its best policy (from 2^29), and no score (from 0): luck there is no luck here.
_SEED = 2**29 + 2**28
_EPISODES = 5  # times as many as in an evaluation during training
_SHOWN_TRIALS = 4  # With what the search began with, they fit into 80 columns.
_FAILED_IN_A_ROW = 3  # Trials, after which it is not their hyper-parameters that fail.


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """Searching hyper-parameters.

    Raises:
        ValueError: If a value is out of range.
    """

    tune: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Search hyper-parameters, in runs/ENV/AGENT-tune or --run-dir: those of the agent that are not
    given as flags, beginning with the preset's. The same command goes on where it stopped; started
    several times at once, its processes share the work."""
    trials: int = 30
    """With --tune: how many trainings, of all processes together; those that fail do not count."""
    search: tuple[str, ...] = ()
    """With --tune: search these fields and no others, beginning with the values given as flags."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1, got {self.trials}")
        if self.search and not self.tune:
            raise ValueError("--search goes with --tune")


def choose_space(
    space: SearchSpace, start: Mapping[str, Any], given: set[str], named: Sequence[str]
) -> SearchSpace:
    """Choose what is searched; what it begins with is in it.

    Args:
        space: the agent's.
        start: the values to begin with, by name.
        given: fields that were given a value, and are searched only if they are named.
        named: fields to search; if there are none, all that were not given a value.

    Raises:
        UsageError: If a field cannot be searched, or none is left.
    """
    names = [name.replace("-", "_") for name in named] or [n for n in space if n not in given]
    for name in names:
        if name not in space:
            raise UsageError(f"--search {name}: there are {', '.join(space)}")
    if not names:
        raise UsageError("all hyper-parameters are given a value; name with --search what to vary")
    return {name: space[name].including(start[name]) for name in names}


Train = Callable[[Mapping[str, Any], RunFolder, KVWriter], None]
"""Trains with some hyper-parameters in a folder, until a signal; a writer is told what it logs."""


def tune(
    plan: Plan,
    train: Train,
    signals: Sequence[int],
    *,
    fresh: bool,
    failures: tuple[type[Exception], ...],
) -> Findings:
    """Search until there are enough trials, or a signal; give what was found.

    Args:
        plan: what to search.
        train: trains.
        signals: is filled when it is time to stop; a trial is then put down, to be gone on with.
        fresh: start over.
        failures: what `train` raises if a training cannot go on.

    Raises:
        UsageError: If trials fail one after another, or others search where to start over.
        FileError: If the folder holds another search, or is damaged.
    """
    failed = 0
    with open_study(plan, fresh=fresh) as study:
        while not signals and (trial := study.take()):
            error = _try(trial, plan, train, signals, (EnvError, FileError, *failures))
            failed = failed + 1 if error else 0
            if failed == _FAILED_IN_A_ROW:
                raise UsageError(f"{failed} trials in a row failed, the last: {error}") from error
        return study.findings()


def _try(
    trial: Trial,
    plan: Plan,
    train: Train,
    signals: Sequence[int],
    failures: tuple[type[Exception], ...],
) -> Exception | None:
    """Train with a trial's hyper-parameters and score what comes out; give what it failed of."""
    values = ", ".join(f"{name} {value}" for name, value in trial.values.items())
    _say(f"\ntrial {trial.number}: {values}")
    try:
        train(trial.values, trial.folder, _Reporter(trial, plan))
        score = None if signals else _score(trial.folder, plan, signals)
    except _PrunedError:
        trial.prune()
        _say(f"trial {trial.number} is given up: half of the others were better by then")
    except failures as error:
        trial.fail()
        _say(f"trial {trial.number} failed: {error}")
        return error
    else:
        if score is None:
            trial.put_down()
        else:
            trial.complete(score)
            _say(f"trial {trial.number}: {score.mean:,.2f} over {score.episodes} other episodes")
    return None


class _PrunedError(Exception):
    """A training is not worth its end."""


class _Reporter(KVWriter):
    """Reads evaluations from what a training logs, and stops it where others were better."""

    def __init__(self, trial: Trial, plan: Plan) -> None:
        self._trial, self._plan = trial, plan

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Report an evaluation, if there was one.

        Raises:
            _PrunedError: If the training is to be given up; not at its end.
        """
        if "eval/mean_reward" in key_values:
            part = step // self._plan.eval_every
            go_on = self._trial.report(part, float(key_values["eval/mean_reward"]))
            if not go_on and step < self._plan.total_env_steps:
                raise _PrunedError

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _score(folder: RunFolder, plan: Plan, signals: Sequence[int]) -> Score | None:
    """Score the best policy of a training, its actions drawn as in training; None at a signal."""
    file, _ = find_policy(folder.path)
    num_episodes = _EPISODES * plan.eval_episodes
    with vector_env(plan.env, plan.num_envs, num_episodes) as envs:
        played = play_episodes(
            file.policy, envs, num_episodes=num_episodes, seed=_SEED, greedy=False
        )
        episodes = list(itertools.takewhile(lambda _: not signals, played))
    return None if signals else score_episodes(sorted(episodes, key=lambda e: e.seed))


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def print_findings(console: Console, findings: Findings) -> None:
    """Print the best trials of a search, one a column, and what it began with beside them."""
    words = {"fail": "failed", "running": "under way"}
    counts = ", ".join(f"{n} {words.get(s, s)}" for s, n in sorted(findings.states.items()))
    best = list(findings.complete[:_SHOWN_TRIALS])
    if not best:
        console.print(f"no trial is complete yet ({counts or 'none was begun'})")
        return
    best += [finding for finding in findings.complete[_SHOWN_TRIALS:] if finding.number == 0]
    table = Table(title=f"The best trials ({counts})", title_justify="left")
    table.add_column("trial", no_wrap=True)
    for finding in best:
        name = str(finding.number) if finding.number else "start"
        table.add_column(name, justify="right", overflow="fold")
    table.add_row("mean return", *(f"{finding.mean:,.2f}" for finding in best))
    intervals = (f"{finding.ci_low:,.2f} to {finding.ci_high:,.2f}" for finding in best)
    table.add_row("95 % interval", *intervals, end_section=True)
    for name in best[0].values:
        table.add_row(name, *(str(finding.values[name]) for finding in best))
    table.caption = (
        f"over {best[0].episodes} episodes by which nothing else was chosen; the best of many "
        "trials was lucky all the same"
    )
    table.caption_justify = "left"
    console.print(table)
