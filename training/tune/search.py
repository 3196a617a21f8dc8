"""The search for hyper-parameters: what is tried next, in an Optuna study that processes share.

The folder of a search:

```
trial-000/ ...   the run folder of each trial; the first trial has the start values
study.journal    all trials and their results, a line of JSON for each event
lock             locks of the processes that are at work, and of the trials they work on
```

A process that works on a trial holds its lock. When the process ends, for whatever reason, the
kernel releases the lock; another process may then resume the trial from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.extras import import_extra
from agents.search_space import Range, SearchSpace
from envs import EnvConfig
from evaluation.statistics import Score
from storage.files import FileError, check_no_link, open_regular
from storage.run_folder import RunFolder
from training.errors import TrainingError
from training.tune.locks import Locks

_NEVER_PRUNED = 5  # Trials that are never stopped early; the others are compared with them.
_NEVER_PRUNED_SHARE = 1 / 3  # Share of a training run before which it is never stopped early.
_MAX_STARTS = 3  # A trial has failed if its process died this many times.
_MAX_JOURNAL_BYTES = 2**26  # A thousand trials take about a megabyte.

_AT_WORK, _TAKING, _JOURNAL, _TRIALS = 0, 1, 2, 16  # Locks; the last one is that of trial 0.


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched, and how.

    Attributes:
        folder: the folder of the search.
        facts: the configuration that all trials share, as plain values by dotted name.
        start: the agent's values that the search starts with, by name of the field.
        space: the values to search, including the start values, by name of the agent's field.
        num_trials: number of trials to complete or to stop early, over all processes.
        env: the environment.
        num_envs: number of environments that run in parallel.
        total_env_steps: length of a training run.
        eval_every: env steps between its evaluations.
        eval_episodes: episodes of an evaluation.
        seed: seed of the random choice of values.
    """

    folder: Path
    facts: Mapping[str, Any]
    start: Mapping[str, Any]
    space: SearchSpace
    num_trials: int
    env: EnvConfig
    num_envs: int
    total_env_steps: int
    eval_every: int
    eval_episodes: int
    seed: int

    def run_folder(self, number: int) -> RunFolder:
        """Return the run folder of a trial."""
        return RunFolder(self.folder / f"trial-{number:03d}")

    def rounded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a trial: numbers that were drawn have three significant digits."""
        drawn = {n for n in params if isinstance(self.space[n], Range)}
        drawn -= {n for n in drawn if params[n] == self.start[n]}
        return {n: float(f"{v:.3g}") if n in drawn else v for n, v in params.items()}


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The result of a complete trial.

    Attributes:
        number: number of the trial, counted from 0.
        values: its hyper-parameters.
        mean: mean return of its best policy.
        ci_low: lower end of the 95 % interval of the mean.
        ci_high: its upper end.
        episodes: number of episodes that the mean is over.
    """

    number: int
    values: Mapping[str, Any]
    mean: float
    ci_low: float
    ci_high: float
    episodes: int


@dataclass(frozen=True, kw_only=True)
class SearchResults:
    """The results of a search so far.

    Attributes:
        complete: results of the complete trials, the best one first; of equal ones, the earliest.
        states: number of trials that are `complete`, `pruned`, `fail`, `running` or `waiting`.
    """

    complete: Sequence[TrialResult]
    states: Mapping[str, int]


@contextlib.contextmanager
def open_study(plan: Plan, *, fresh: bool) -> Iterator[Study]:
    """Start a search, or resume it.

    Args:
        plan: what to search.
        fresh: remove earlier trials and results first.

    Raises:
        TrainingError: If the folder is a run folder, or if it is to be cleared while another
            process searches in it.
        FileError: If the folder holds another search, is damaged, or cannot be written.
    """
    import_extra("optuna", "tune")
    if plan.folder.is_file():
        raise TrainingError(f"--run-dir {plan.folder} is a file; name a folder")
    if RunFolder(plan.folder).holds_run:
        raise TrainingError(f"{plan.folder} holds a run; choose another --run-dir to search in")
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(Locks(plan.folder / "lock")) as locks:
            if fresh:
                _clear(plan.folder, locks)
            locks.acquire(_AT_WORK, shared=True)
            yield Study(plan, locks)
    except OSError as error:
        raise FileError(
            f"{error.filename or plan.folder} could not be written ({error.strerror}); earlier "
            "results are kept, and the same command resumes the search"
        ) from error


def _clear(folder: Path, locks: Locks) -> None:
    """Remove everything that a search wrote; the journal last, because it marks the search.

    Raises:
        TrainingError: If another process searches in the folder.
    """
    if not locks.acquire(_AT_WORK, wait=False):
        raise TrainingError(f"another process searches in {folder}; stop it, or leave out --fresh")
    for trial in folder.glob("trial-*"):
        check_no_link(trial)
        RunFolder(trial).remove_leftovers()
        RunFolder(trial).clear()
    (folder / "study.journal").unlink(missing_ok=True)


def _check_journal(journal: Path) -> None:
    """Check that a journal is a file of bounded size that Optuna may read, and append to.

    Raises:
        FileError: If it is not.
    """
    check_no_link(journal)
    if journal.exists():
        open_regular(journal, _MAX_JOURNAL_BYTES).close()


class Study:
    """The trials of a search.

    Args:
        plan: what is searched.
        locks: the locks in the folder of the search.

    Raises:
        FileError: If the folder holds another search, or is damaged.
    """

    def __init__(self, plan: Plan, locks: Locks) -> None:
        self.plan, self._locks = plan, locks
        self._optuna = import_extra("optuna", "tune")
        self._optuna.logging.set_verbosity(logging.WARNING)
        journal = plan.folder / "study.journal"
        _check_journal(journal)
        with locks.held(_TAKING):
            with _naming_damage(journal):
                self._study = self._open(journal)
                is_new = not self._study.trials
                before = dict(self._study.user_attrs.get("facts", {}))
                for trial in self._study.trials:
                    _starts(trial)
            searched = {f"agent.{name}": _describe_search(plan, name) for name in plan.space}
            facts = {**plan.facts, **searched}
            if not is_new:
                _check_same(plan.folder, before, facts)
                with _naming_damage(journal):
                    self.results()
            else:
                self._study.set_user_attr("facts", facts)
                self._study.enqueue_trial({name: plan.start[name] for name in plan.space})

    def _open(self, journal: Path) -> Any:
        """Open the study of Optuna."""
        optuna, plan = self._optuna, self.plan
        lock = _JournalLock(journal, self._locks)
        backend = optuna.storages.journal.JournalFileBackend(str(journal), lock_obj=lock)
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=_NEVER_PRUNED,
            n_warmup_steps=round(_NEVER_PRUNED_SHARE * plan.total_env_steps / plan.eval_every),
        )
        return optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name="tune",
            direction="maximize",
            load_if_exists=True,
            pruner=pruner,
        )

    def take(self) -> Trial | None:
        """Resume a trial that no process works on, or start a new one.

        A process works on one trial at a time.

        Returns:
            The trial, or None if there are enough trials.
        """
        states = self._optuna.trial.TrialState
        with self._locks.held(_TAKING):
            for frozen in self._study.get_trials(states=[states.RUNNING]):
                if self._locks.acquire(_TRIALS + frozen.number, wait=False):
                    # Optuna has no public way to get a trial that another process started.
                    trial = self._start(self._optuna.Trial(self._study, frozen._trial_id))
                    if trial.starts <= _MAX_STARTS:
                        return trial
                    trial.fail()
            trials = self._study.get_trials()
            counted = (states.COMPLETE, states.PRUNED, states.RUNNING)
            if sum(trial.state in counted for trial in trials) >= self.plan.num_trials:
                return None
            # The next values are the same whether the search was interrupted or not.
            seed = self.plan.seed + 1_000_003 * len(trials)
            self._study.sampler = self._optuna.samplers.TPESampler(seed=seed % 2**32)
            new = self._study.ask()
            self._locks.acquire(_TRIALS + new.number)
            return self._start(new)

    def _start(self, trial: Any) -> Trial:
        for name, values in self.plan.space.items():
            if isinstance(values, Range):
                trial.suggest_float(name, values.low, values.high, log=values.log)
            else:
                trial.suggest_categorical(name, values.values)
        return Trial(self.plan, self._study, trial, self._locks)

    def results(self) -> SearchResults:
        """Return the results so far."""
        trials = self._study.trials
        complete = [
            TrialResult(
                number=trial.number,
                values=self.plan.rounded({name: trial.params[name] for name in self.plan.space}),
                mean=trial.value,
                **trial.user_attrs["score"],
            )
            for trial in trials
            if trial.state.name == "COMPLETE"
        ]
        complete.sort(key=lambda result: -result.mean)
        states = Counter(trial.state.name.lower() for trial in trials)
        return SearchResults(complete=complete, states=states)


class Trial:
    """A trial that this process works on, until one of the methods below ends or suspends it.

    Args:
        plan: what is searched.
        study: the study of Optuna.
        trial: the trial of Optuna.
        locks: the locks in the folder of the search; that of the trial is held.

    Attributes:
        number: number of the trial, counted from 0.
        values: its hyper-parameters.
        folder: its run folder.
        starts: how often it was started or resumed; those that `suspend` ended are not counted.
    """

    def __init__(self, plan: Plan, study: Any, trial: Any, locks: Locks) -> None:
        self._study, self._trial, self._locks = study, trial, locks
        self.number: int = trial.number
        self.values = plan.rounded(trial.params)
        self.folder = plan.run_folder(self.number)
        self.starts = _starts(trial) + 1
        self._reported = set(study.trials[self.number].intermediate_values)
        trial.set_user_attr("starts", self.starts)

    def report(self, part: int, value: float) -> bool:
        """Report an evaluation, and return whether the training is worth continuing.

        Args:
            part: progress of the training, in intervals between evaluations.
            value: the mean return.
        """
        # A training run that resumes from a checkpoint may repeat some evaluations.
        if part not in self._reported:
            self._reported.add(part)
            self._trial.report(value, part)
        return not self._trial.should_prune()

    def complete(self, score: Score) -> None:
        """End the trial with a score."""
        kept = {"ci_low": score.ci_low, "ci_high": score.ci_high, "episodes": score.episodes}
        self._trial.set_user_attr("score", kept)
        self._end(score.mean)

    def prune(self) -> None:
        """End the trial early."""
        self._end(state="PRUNED")

    def fail(self) -> None:
        """End the trial without a result."""
        self._end(state="FAIL")

    def suspend(self) -> None:
        """Leave the trial unfinished, to be resumed."""
        self._trial.set_user_attr("starts", self.starts - 1)
        self._locks.release(_TRIALS + self.number)

    def _end(self, value: float | None = None, state: str = "COMPLETE") -> None:
        states = import_extra("optuna", "tune").trial.TrialState
        self._study.tell(self.number, value, states[state])
        self._locks.release(_TRIALS + self.number)


class _JournalLock:
    """Excludes other processes, and removes an incomplete last line of a process that died."""

    def __init__(self, journal: Path, locks: Locks) -> None:
        self._journal, self._locks = journal, locks

    def acquire(self) -> bool:
        """Acquire the lock; a last line that is incomplete then belongs to a process that died."""
        self._locks.acquire(_JOURNAL)
        content = self._journal.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(self._journal, content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Release the lock."""
        self._locks.release(_JOURNAL)


@contextlib.contextmanager
def _naming_damage(journal: Path) -> Iterator[None]:
    """Convert the errors that Optuna raises for a damaged journal into a `FileError`.

    Raises:
        FileError: If the journal is damaged.
    """
    damage = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError)
    try:
        yield
    except (*damage, import_extra("optuna", "tune").exceptions.OptunaError) as error:
        raise FileError(f"{journal} is damaged; start over with --fresh") from error


def _starts(trial: Any) -> int:
    """Return how often a trial was started.

    Raises:
        TypeError: If the journal does not say so with a number.
    """
    starts = trial.user_attrs.get("starts", 0)
    if type(starts) is not int or starts < 0:
        raise TypeError(f"a trial was started {starts!r} times")
    return starts


def _describe_search(plan: Plan, name: str) -> str:
    return f"searched in {plan.space[name]}, from {plan.start[name]}"


def _check_same(folder: Path, before: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Check that the facts of a search equal those of the earlier search in its folder.

    Raises:
        FileError: If they differ.
    """
    for name in sorted(facts.keys() | before.keys()):
        if before.get(name) != facts.get(name):
            raise FileError(
                f"{folder} holds a search with {name} {before.get(name)}, not {facts.get(name)}; "
                "choose another --run-dir, or start over with --fresh"
            )
