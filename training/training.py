"""A training run in progress: its parts, its progress, and the steps of its loop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents import Agent, OverlappedSampler
from agents.collector import Collected, Collector
from agents.distributed import ALONE, Ranks
from envs import EnvError, SharedVectorEnv, StoppedError
from envs.registry import frames_per_env_step
from evaluation.printing import print_line
from evaluation.protocol import pasteable
from storage.run_folder import RunFolder
from training.callbacks import Callback
from training.config import AnyTrainConfig
from training.errors import TrainingError
from training.evaluation import PeriodicEvaluation
from training.guard import GuardedUpdate, continuing_without_disk
from training.logger import RunLogger
from training.progress import EVALUATED, Progress, is_finished
from training.ranks import gather_states
from training.recorder import TrainingRecorder
from training.saving import save_all


@dataclass(kw_only=True)
class Training:
    """A training run in progress; `training.assemble.open_training` makes one.

    Attributes:
        config: the configuration.
        folder: the run folder.
        envs: the environments that rollouts are collected from.
        agent: the agent.
        collector: collects rollouts.
        evaluation: evaluates the policy every so often; None: no evaluation is made.
        logger: logs to TensorBoard, CSV and the terminal.
        recorder: records episodes of training; None: nothing is recorded.
        progress: how far the training is.
        signals: is filled when the training is to stop.
        env_limit: env steps a second of the environments without a policy.
        callbacks: are called while the training runs.
        ranks: the processes that train together; all take the same steps of the loop.
    """

    config: AnyTrainConfig
    folder: RunFolder
    envs: SharedVectorEnv
    agent: Agent[Any]
    collector: Collector
    evaluation: PeriodicEvaluation | None
    logger: RunLogger
    recorder: TrainingRecorder | None
    progress: Progress
    signals: list[int]
    env_limit: float
    callbacks: Sequence[Callback] = ()
    ranks: Ranks = ALONE
    _guarded_update: GuardedUpdate = field(init=False)
    _seconds: float = field(init=False, default=0.0)
    _started: float = field(init=False, default=0.0)
    _stopped: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Take the state at which this part of the training starts."""
        self._guarded_update = GuardedUpdate(
            self.agent, self.folder, self.progress, self.logger.progress.say
        )
        self._first_env_steps, self._first_seconds = self.progress.env_steps, self.progress.seconds
        self._first_other_seconds = self.progress.other_seconds
        self._restarts_before = self.progress.restarts
        self._frame_skip = frames_per_env_step(self.config.env)
        self._saved_at = time.monotonic()
        self._save_due = False  # As rank 0 said last.
        self._ended: list[dict[str, float]] = []  # Statistics of the last rollouts' episodes.
        self._restarts_elsewhere = 0

    @property
    def is_over(self) -> bool:
        """Whether the training has had its env steps, stopped improving, or was told to stop.

        Ranks ask each other, so that all of them stop after the same update.
        """
        told = bool(self.signals) or self._stopped
        if self.ranks.is_group:
            told = self._ask_ranks(told)
        return told or is_finished(self.config, self.progress)

    def _ask_ranks(self, told: bool) -> bool:
        """Return whether any rank was told to stop, and learn what rank 0 has evaluated."""
        progress = self.progress
        mine = {
            "told": told,
            "signals": list(self.signals),
            "save_due": time.monotonic() - self._saved_at >= self.config.checkpoint_every_s,
            "evaluated": {name: getattr(progress, name) for name in EVALUATED},
        }
        everyone = self.ranks.exchange(mine)
        self._save_due = everyone[0]["save_due"]
        for name, value in everyone[0]["evaluated"].items():
            setattr(progress, name, value)
        if not self.signals:  # What stops one rank is the exit status of all.
            self.signals.extend(number for each in everyone for number in each["signals"])
        return any(each["told"] for each in everyone)

    def stop(self) -> None:
        """End the training after this update."""
        self._stopped = True

    def collect(self) -> Collected:
        """Collect a rollout with the current policy."""
        self._started = time.monotonic()
        return self.collector.collect(self.agent.num_updates)

    def update(self, collected: Collected) -> dict[str, float]:
        """Update the policy with a rollout, and return metrics.

        Raises:
            TrainingError: If too many updates in a row were not finite.
        """
        lag = self.agent.num_updates - collected.version
        metrics = self._guarded_update(collected)
        self.collector.stopwatch.lap("update")
        progress, self._seconds = self.progress, time.monotonic() - self._started
        progress.env_steps += self.config.env_steps_per_update
        progress.seconds += self._seconds
        everyone = self.ranks.exchange(
            {
                "episodes": [episode.statistics for episode in collected.episodes],
                "next_episode_seed": collected.next_episode_seed,
                "restarts": self.envs.num_restarts,
            }
        )
        self._ended = [episode for each in everyone for episode in each["episodes"]]
        self._restarts_elsewhere = sum(each["restarts"] for each in everyone)
        self._restarts_elsewhere -= self.envs.num_restarts
        progress.episodes += len(self._ended)
        progress.next_episode_seed = max(each["next_episode_seed"] for each in everyone)
        self.logger.record("train/policy_lag", lag)
        return metrics

    def evaluate_if_due(self) -> bool:
        """Evaluate the policy if it is time to, keep it if it is the best, and return whether."""
        due = min(self.progress.next_evaluation, self.config.total_env_steps)
        score = None
        if self.evaluation and self.progress.env_steps >= due:
            score = self.evaluation.run(self.config, self.progress, self.signals)
            for callback in self.callbacks:
                if score is not None:
                    callback.on_evaluation(self, score)
        self.collector.stopwatch.lap("evaluation")
        return score is not None

    def repeat_evaluation(self) -> None:
        """Make the evaluation in which the last part of the training was interrupted, if it was."""
        if self.evaluate_if_due():
            self._record_counters()
            with continuing_without_disk(self.logger.progress.say):
                self.logger.dump(self.progress.env_steps)

    def log(self, collected: Collected, metrics: dict[str, float]) -> None:
        """Log an update, and record episodes."""
        logger, progress, stopwatch = self.logger, self.progress, self.collector.stopwatch
        env_steps_per_s = self.config.env_steps_per_update / self._seconds
        logger.record_episodes(self._ended)
        if self.recorder:
            with continuing_without_disk(logger.progress.say):
                self.recorder.take(collected.episodes, progress.env_steps)
        for callback in self.callbacks:
            callback.on_update(self, collected, metrics)
        logger.record("train/skipped_updates", progress.skipped_updates)
        logger.record_update(metrics)
        logger.record("time/fps", self._frame_skip * env_steps_per_s)
        logger.record("time/env_steps_per_s", env_steps_per_s)
        self._record_counters()
        for phase, share in stopwatch.shares().items():
            logger.record(f"time/share_{phase}", share)
        self._count_restarts()
        logger.record("time/restarts", progress.restarts)
        progress.returns, progress.lengths = logger.last_episodes
        with continuing_without_disk(logger.progress.say):
            logger.dump(progress.env_steps)
        stopwatch.lap("logging")

    def save_if_due(self) -> None:
        """Write a checkpoint if it is time to."""
        due = time.monotonic() - self._saved_at >= self.config.checkpoint_every_s
        if self._save_due if self.ranks.is_group else due:
            self.save()
            self._saved_at = time.monotonic()
        self.collector.stopwatch.lap("logging")

    def save(self, *, resumes_episodes: bool = True) -> bool:
        """Write a checkpoint and the latest policy, and return whether they could be written.

        Rank 0 writes the states of all ranks into one file.

        Args:
            resumes_episodes: whether the collector's state is saved too.
        """
        spent = self.collector.stopwatch.seconds
        self.progress.other_seconds = self._first_other_seconds + sum(
            spent.get(phase, 0.0) for phase in ("evaluation", "logging")
        )
        state = self.collector.state() if resumes_episodes else {}
        say = self.logger.progress.say
        # Recordings first: a run that resumes from a checkpoint has had the episodes before it.
        if self.recorder:
            with continuing_without_disk(say):
                self.recorder.save()
        state = gather_states(self.agent, state) if self.ranks.size > 1 else state
        written = self.ranks.is_first and save_all(
            self.folder, self.agent, self.config, self.progress, state, say
        )
        return any(self.ranks.exchange(written))

    @contextlib.contextmanager
    def saving_at_the_end(self) -> Iterator[None]:
        """Save at the end, also if environments or updates fail.

        If they fail at one of several ranks, the others cannot be saved with it: all end, and
        resume from the last checkpoint.

        Raises:
            RankError: If another rank has ended.
            TrainingError: If they fail, or if the last checkpoint could not be written.
        """
        self.collector.stopwatch.skip()
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            # A rollout that is interrupted is collected again when the training resumes.
            with contextlib.suppress(StoppedError):
                yield
            if is_finished(self.config, self.progress):  # Perhaps between two averages.
                self.agent.average_weights()
            for callback in self.callbacks:
                callback.on_end(self)
        except (EnvError, TrainingError) as error:
            if self.ranks.size > 1:
                raise TrainingError(
                    f"{error}; this is rank {self.ranks.rank}, and all ranks resume from the last "
                    "checkpoint"
                ) from error
            self.save(resumes_episodes=False)
            raise TrainingError(
                f"{error}; what was learned in {self.progress.env_steps:,} env steps is saved"
            ) from error
        except Exception:  # An error of ours costs no work either.
            if self.ranks.size > 1:
                raise
            self.save(resumes_episodes=False)
            raise
        if not self.save():
            raise TrainingError(f"{self.folder.path} holds only what could be written before")

    def report(self) -> None:
        """Print what came of the training, and what to do next, at rank 0."""
        if not self.ranks.is_first:
            return
        progress = self.progress
        verb = "interrupted at" if self.signals else "trained for"
        print_line(
            f"{verb} {progress.env_steps:,} env steps in "
            f"{progress.seconds + progress.other_seconds:,.0f} s: {progress.seconds:,.0f} s "
            f"collecting and learning, {progress.other_seconds:,.0f} s evaluating, logging and "
            "saving"
        )
        if progress.best_score is not None:
            print_line(f"best evaluation during training: {progress.best_score:,.2f}")
        run = pasteable(self.folder.path, self.config.env, self.config.import_)
        print_line(f"score it:  python evaluate.py score {run}")
        print_line(f"replay it: python evaluate.py replay {run}")
        seconds = progress.seconds - self._first_seconds
        if seconds > 0:
            self._report_speed((progress.env_steps - self._first_env_steps) / seconds)

    def _report_speed(self, env_steps_per_s: float) -> None:
        """Print the speed, beside that of the environments alone, and where the time went."""
        print_line(
            f"{env_steps_per_s:,.0f} env steps/s while collecting and learning; all the time went "
            f"to: {self.collector.stopwatch.summary()}"
        )
        print_line(
            f"environment-only limit (random actions): {self.env_limit:,.0f} env steps/s; this run "
            f"reaches {100 * env_steps_per_s / self.env_limit:.0f} %"
        )
        if isinstance(self.collector, OverlappedSampler):
            print_line(f"the sampler's thread: {self.collector.sampler_stopwatch.summary()}")

    def _record_counters(self) -> None:
        self.logger.record("time/total_timesteps", self.progress.env_steps)
        self.logger.record("time/time_elapsed", self.progress.seconds)
        self.logger.record("time/episodes", self.progress.episodes)

    def _count_restarts(self) -> None:
        """Count restarted environments, and report the first one."""
        all_envs = {self.envs, self.evaluation.envs} if self.evaluation else {self.envs}
        restarts = self._restarts_before + sum(envs.num_restarts for envs in all_envs)
        here, restarts = restarts, restarts + self._restarts_elsewhere
        if here > self.progress.restarts == self._restarts_before:
            reason = next(envs.last_restart for envs in all_envs if envs.last_restart)
            self.logger.progress.say(
                f"{reason}; the environment is restarted, further restarts are only counted"
            )
        self.progress.restarts = restarts
