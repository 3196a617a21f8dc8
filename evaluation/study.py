"""What a search for hyper-parameters has tried and will try: Optuna's study, shared by processes.

The folder of a search:

```
trial-000/ ...   a run folder for each trial; the first is the setting that the search began with
study.journal    what was tried and found, a line of JSON for each event
lock             which processes are at work, and on which trials
```

A trial is its process's through a lock that ends with the process, however that ends; whoever comes
next takes the trial over, and goes on with it from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.checkpoint import FileError
from agents.commandline import UsageError, import_extra
from agents.run import RunFolder
from agents.search import Range, SearchSpace
from envs import EnvConfig
from evaluation.locks import Locks
from evaluation.statistics import Score

_NEVER_PRUNED = 5  # trials, with which the others are compared
_NEVER_PRUNED_SHARE = 1 / 3  # of a training: who learns late may learn well
_STARTS = 3  # of a trial with which each time its process died; it has failed then
_WARNING = 30  # as in logging

_AT_WORK, _TAKING, _JOURNAL, _TRIALS = 0, 1, 2, 16  # Locks; the last is the first trial's.


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be searched.

    Attributes:
        folder: where.
        facts: what all trials share and what is searched begins with, by name: plain values.
        space: what is searched, including what it begins with.
        num_trials: how many trials are to be completed or pruned, over all processes.
        env: the world.
        num_envs: games in parallel.
        total_env_steps: of a training.
        eval_every: env steps between its evaluations.
        eval_episodes: episodes of an evaluation.
        seed: decides what is tried.
    """

    folder: Path
    facts: Mapping[str, Any]
    space: SearchSpace
    num_trials: int
    env: EnvConfig
    num_envs: int
    total_env_steps: int
    eval_every: int
    eval_episodes: int
    seed: int

    @property
    def start(self) -> dict[str, Any]:
        """What to begin with."""
        return {name: self.facts[name] for name in self.space}

    def run_folder(self, number: int) -> RunFolder:
        """Give a trial's run folder."""
        return RunFolder(self.folder / f"trial-{number:03d}")

    def typed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Round what was drawn to what is worth typing; that is what is tried."""
        drawn = {n for n in params if isinstance(self.space[n], Range)}
        drawn -= {n for n in drawn if params[n] == self.facts[n]}
        return {n: float(f"{v:.3g}") if n in drawn else v for n, v in params.items()}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A trial that is complete.

    Attributes:
        number: all trials are counted from 0.
        values: its hyper-parameters.
        mean: its score.
        ci_low: lower end of the score's 95 % interval.
        ci_high: its upper end.
        episodes: over how many episodes.
    """

    number: int
    values: Mapping[str, Any]
    mean: float
    ci_low: float
    ci_high: float
    episodes: int


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a search has found so far.

    Attributes:
        complete: the best first; of equals, the first.
        states: how many trials are `complete`, `pruned`, `fail`, `running` or `waiting`.
    """

    complete: Sequence[Finding]
    states: Mapping[str, int]


@contextlib.contextmanager
def open_study(plan: Plan, *, fresh: bool) -> Iterator[Study]:
    """Begin a search, or go on with it.

    Args:
        plan: what to search.
        fresh: remove what was found before.

    Raises:
        UsageError: If the folder is a run's, or is to be begun anew while others are at work.
        FileError: If it holds another search, or is damaged, or cannot be written.
    """
    import_extra("optuna", "tune")
    if plan.folder.is_file():
        raise UsageError(f"--run-dir {plan.folder} is a file; name a folder")
    if RunFolder(plan.folder).holds_run:
        raise UsageError(f"{plan.folder} holds a run; choose another --run-dir to search in")
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(Locks(plan.folder / "lock")) as locks:
            if fresh:
                _clear(plan.folder, locks)
            locks.take(_AT_WORK, shared=True)
            yield Study(plan, locks)
    except OSError as error:
        raise FileError(
            f"{error.filename or plan.folder} could not be written ({error.strerror}); what was "
            "found so far is kept, and the same command goes on from there"
        ) from error


def _clear(folder: Path, locks: Locks) -> None:
    """Remove all that a search wrote; the journal last, which makes it one.

    Raises:
        UsageError: If processes are at work on it.
    """
    if not locks.take(_AT_WORK, wait=False):
        raise UsageError(f"others search in {folder}; stop them, or leave out --fresh")
    for trial in folder.glob("trial-*"):
        RunFolder(trial).clear()
    (folder / "study.journal").unlink(missing_ok=True)


class Study:
    """All trials.

    Args:
        plan: what is searched.
        locks: of its folder.

    Raises:
        FileError: If the folder holds another search, or is damaged.
    """

    def __init__(self, plan: Plan, locks: Locks) -> None:
        self.plan, self._locks = plan, locks
        self._optuna = import_extra("optuna", "tune")
        self._optuna.logging.set_verbosity(_WARNING)
        journal = plan.folder / "study.journal"
        with locks.held(_TAKING):
            with _reading(journal):
                self._study = self._open(journal)
                begun, before = bool(self._study.trials), self._study.user_attrs.get("facts", {})
                before = dict(before)
            facts = {**plan.facts, **{name: _in_words(plan, name) for name in plan.space}}
            if begun:
                _refuse_other(plan.folder, before, facts)
                with _reading(journal):
                    self.findings()
            else:
                self._study.set_user_attr("facts", facts)
                self._study.enqueue_trial(plan.start)

    def _open(self, journal: Path) -> Any:
        """Open Optuna's study."""
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
        """Take over a trial that nobody works on any more, or begin one; None if none is left.

        A process works on one at a time.
        """
        states = self._optuna.trial.TrialState
        with self._locks.held(_TAKING):
            for frozen in self._study.get_trials(states=[states.RUNNING]):
                if self._locks.take(_TRIALS + frozen.number, wait=False):
                    # There is no public way to a trial that was begun by another process.
                    trial = self._begin(self._optuna.Trial(self._study, frozen._trial_id))
                    if trial.starts <= _STARTS:
                        return trial
                    trial.fail()
            trials = self._study.get_trials()
            counted = (states.COMPLETE, states.PRUNED, states.RUNNING)
            if sum(trial.state in counted for trial in trials) >= self.plan.num_trials:
                return None
            # What is tried next is the same whether the search was interrupted or not.
            seed = self.plan.seed + 1_000_003 * len(trials)
            self._study.sampler = self._optuna.samplers.TPESampler(seed=seed % 2**32)
            asked = self._study.ask()
            self._locks.take(_TRIALS + asked.number)
            return self._begin(asked)

    def _begin(self, trial: Any) -> Trial:
        for name, values in self.plan.space.items():
            if isinstance(values, Range):
                trial.suggest_float(name, values.low, values.high, log=values.log)
            else:
                trial.suggest_categorical(name, values.values)
        return Trial(self.plan, self._study, trial, self._locks)

    def findings(self) -> Findings:
        """Give what was found so far."""
        trials = self._study.trials
        complete = [
            Finding(
                number=trial.number,
                values=self.plan.typed({name: trial.params[name] for name in self.plan.space}),
                mean=trial.value,
                **trial.user_attrs["score"],
            )
            for trial in trials
            if trial.state.name == "COMPLETE"
        ]
        complete.sort(key=lambda finding: -finding.mean)
        states = Counter(trial.state.name.lower() for trial in trials)
        return Findings(complete=complete, states=states)


class Trial:
    """A trial that is this process's until it ends, in one way or another.

    Args:
        plan: what is searched.
        study: Optuna's.
        trial: Optuna's.
        locks: the trial's is held.

    Attributes:
        number: all trials are counted from 0.
        values: its hyper-parameters.
        folder: its run folder.
        starts: how often it was begun or gone on with, but for those ended by `put_down`.
    """

    def __init__(self, plan: Plan, study: Any, trial: Any, locks: Locks) -> None:
        self._study, self._trial, self._locks = study, trial, locks
        self.number: int = trial.number
        self.values = plan.typed(trial.params)
        self.folder = plan.run_folder(self.number)
        self.starts: int = trial.user_attrs.get("starts", 0) + 1
        self._reported = set(study.trials[self.number].intermediate_values)
        trial.set_user_attr("starts", self.starts)

    def report(self, part: int, value: float) -> bool:
        """Report an evaluation, and tell whether to go on.

        Args:
            part: how much of the training is over, in intervals between evaluations.
            value: the mean return.
        """
        # Who goes on from a checkpoint meets some evaluations again.
        if part not in self._reported:
            self._reported.add(part)
            self._trial.report(value, part)
        return not self._trial.should_prune()

    def complete(self, score: Score) -> None:
        """End it with a score."""
        kept = {"ci_low": score.ci_low, "ci_high": score.ci_high, "episodes": score.episodes}
        self._trial.set_user_attr("score", kept)
        self._end(score.mean)

    def prune(self) -> None:
        """End it before its time."""
        self._end(state="PRUNED")

    def fail(self) -> None:
        """End it without a result."""
        self._end(state="FAIL")

    def put_down(self) -> None:
        """Leave it to be gone on with."""
        self._trial.set_user_attr("starts", self.starts - 1)
        self._locks.give(_TRIALS + self.number)

    def _end(self, value: float | None = None, state: str = "COMPLETE") -> None:
        states = import_extra("optuna", "tune").trial.TrialState
        self._study.tell(self.number, value, states[state])
        self._locks.give(_TRIALS + self.number)


class _JournalLock:
    """Keeps processes from writing at once, and repairs what one that died left of a line."""

    def __init__(self, journal: Path, locks: Locks) -> None:
        self._journal, self._locks = journal, locks

    def acquire(self) -> bool:
        """Take the lock; whoever wrote before has ended its line, or is no more."""
        self._locks.take(_JOURNAL)
        content = self._journal.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(self._journal, content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Give it back."""
        self._locks.give(_JOURNAL)


@contextlib.contextmanager
def _reading(journal: Path) -> Iterator[None]:
    """Say that a journal is damaged, whatever it is that Optuna meets in it.

    Raises:
        FileError: If it is.
    """
    met = (ValueError, LookupError, TypeError, AttributeError, AssertionError)
    try:
        yield
    except (*met, import_extra("optuna", "tune").exceptions.OptunaError) as error:
        raise FileError(f"{journal} is damaged; start over with --fresh") from error


def _in_words(plan: Plan, name: str) -> str:
    return f"searched in {plan.space[name]}, from {plan.facts[name]}"


def _refuse_other(folder: Path, before: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Go on only with the search that a folder holds.

    Raises:
        FileError: If it is another one.
    """
    for name in facts.keys() | before.keys():
        if before.get(name) != facts.get(name):
            raise FileError(
                f"{folder} holds a search with {name} {before.get(name)}, not {facts.get(name)}; "
                "choose another --run-dir, or start over with --fresh"
            )
