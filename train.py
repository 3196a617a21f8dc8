"""Train an agent: `python train.py ENV [options]`; `python train.py ENV --help` lists them.

ENV is a scenario (basic, defend_the_center, ...), a Gymnasium id (CartPole-v1, ALE/Pong-v5, ...), a
Freedoom map (freedoom2:MAP01) or a path to a ViZDoom .cfg. Defaults are those of ENV's preset; of
basic's where none is named. The same command on a run folder that exists goes on where it stopped.
`python train.py ENV --tune` searches hyper-parameters.
`python train.py --doctor` tells what this machine has and lacks.
"""

from __future__ import annotations

import os

# Before torch is imported. Threads that wait for each other soon go to sleep, instead of taking the
# cores from the games: fewer turns cost recurrent networks their speed, more cost the games.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # Large pages for large tensors.

import contextlib
import functools
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import torch
import tyro
from rich.console import Console
from stable_baselines3.common.logger import KVWriter
from torch import Tensor

from agents import (
    AGENTS,
    SB3_AGENTS,
    Agent,
    AgentConfig,
    OverlappedSampler,
    Sampler,
    build_policy,
    check_agent,
    observation_specs,
)
from agents.autotune import Setting, autotune
from agents.agent import NotFiniteError
from agents.checkpoint import (
    About,
    DamagedError,
    FileError,
    decode,
    load_training,
    save_policy,
    save_tensors,
    save_training,
)
from agents.commandline import (
    UsageError,
    as_arguments,
    given_fields,
    parse,
    run,
    until_interrupted,
    warn_of_wad,
    with_fields,
)
from agents.device import choose_device, choose_precision, keep_memory, precision_name
from agents.doctor import findings as findings_about_learning
from agents.inference import Inference
from evaluation.periodic import PeriodicEvaluation
from evaluation.play import score_episodes
from evaluation.recorder import TrainingRecorder
from evaluation.study import Plan
from evaluation.tuning import TuningConfig, choose_space, print_findings, tune
from agents.logger import RunLogger
from agents.presets import preset
from agents.rollout import Rollout
from agents.run import RunFolder
from agents.sb3 import SB3Agent
from agents.sb3_sampler import SB3Sampler
from agents.tracking import Tracker, TrackerName, load_service
from envs import EnvConfig, EnvError, SharedVectorEnv, canonical_name, folder_name
from envs.cfg import strange_wads
from envs.doctor import findings as findings_about_games
from envs.registry import frames_per_env_step
from envs.sb3 import SharedVecEnv
from envs.speed import random_env_steps_per_second
from envs.fingerprint import fingerprint
from perception import PerceptionConfig, PerceptionError

# Episode seeds: scoring plays from 0, evaluation during training from 2^29, training from 2^30, so
# that no policy is ever judged by an episode it learned from or was selected by.
_TRAINING_SEED = 2**30
_RECORDED_OF_TRAINING = 20  # episodes, evenly over it, beside the first, the best and the worst
_CEILING_STEPS = 100  # of each environment with random actions before a training, to compare with

_KEPT_CHECKPOINTS = 2  # The newest is never the only one.
_SKIPPED_IN_A_ROW = 5  # Updates that were not finite, after which there is no use in going on.


class TrainingError(RuntimeError):
    """A training cannot go on: the message says why, and what of it was saved."""


# What a user can cause or has to know; its message is one line that says what would work.
USER_ERRORS = (UsageError, EnvError, FileError, PerceptionError, TrainingError)

Collector = Sampler | SB3Sampler | OverlappedSampler
LearningT = TypeVar("LearningT", bound=AgentConfig)


@dataclass(frozen=True, kw_only=True)
class World(EnvConfig):
    """How the world is observed and acted upon."""

    env: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(metavar="ENV", help_behavior_hint="(required)"),
    ] = "basic"
    """The world: a scenario, a Gymnasium id, a Freedoom map or a path to a .cfg."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Generic[LearningT]):
    """Everything a training is made of.

    Raises:
        ValueError: If a value is out of range.
    """

    env: Annotated[World, tyro.conf.arg(name="world")]
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    learning: LearningT
    agent: str = "ppo"
    """Who learns: ppo, a2c, reinforce, vtrace; or by Stable-Baselines3's code sb3-ppo, sb3-a2c,
    sb3-recurrent-ppo."""
    total_env_steps: int = 1_000_000
    """How long to train, in decisions of the agent over all environments."""
    num_envs: int = 8
    """Environments that run in parallel, N."""
    num_workers: int | None = None
    """Processes that hold them. None: one for each CPU core."""
    num_groups: int = 1
    """Groups of environments that alternate: one plays while the policy thinks about another."""
    overlap: bool = False
    """Collect the next rollout while learning from the last one, which is then one update old."""
    seed: int = 0
    """Decides everything random in the training."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the policy lives. auto: the GPU if there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What images are encoded with. auto: bfloat16 where the hardware computes with it."""
    inference: Inference = "auto"
    """How the policy acts while it collects: operation by operation, compiled by torch.compile, or
    as a captured CUDA graph. auto: a graph on a GPU, operation by operation on a CPU."""
    num_threads: int | None = None
    """Threads of an update on the CPU. None: one for each core."""
    autotune: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """First find out, in under a minute, how this training is fastest on this machine."""
    run_dir: Path | None = None
    """Where to write. None: runs/ENV/AGENT-seedS."""
    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Start over, although the run folder exists."""
    eval_every: int | None = None
    """Env steps between evaluations. None: a tenth of the training."""
    eval_episodes: int = 20
    """Episodes of an evaluation."""
    record: bool = True
    """Record the episodes of evaluations and some of training, to be replayed."""
    track: TrackerName | None = None
    """Hand what TensorBoard gets on to a tracker too: offline, into the run folder."""
    patience: int | None = None
    """Stop after this many evaluations without a better one. None: never."""
    checkpoint_every_s: float = 60.0
    """Seconds between checkpoints."""
    hang_after_s: float = 30.0
    """A game that takes longer for an env step has hung: it is ended and started anew."""
    max_restarts: int = 100
    """The training stops if more games than this have to be started anew within a minute."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_agent(self.agent)
        counts = ("total_env_steps", "num_envs", "num_workers", "num_groups", "num_threads")
        for name in (*counts, "eval_every", "eval_episodes", "patience", "max_restarts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.num_envs % self.num_groups:
            raise ValueError(
                f"num_envs ({self.num_envs}) must be a multiple of num_groups ({self.num_groups})"
            )
        if self.agent in SB3_AGENTS and (self.overlap or self.autotune):
            raise ValueError(f"{self.agent} collects by itself: leave out --overlap and --autotune")
        if not self.hang_after_s > 0:
            raise ValueError(f"hang_after_s must be greater than 0, got {self.hang_after_s}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be between 0 and 2^31 - 1, got {self.seed}")

    @property
    def evaluation_interval(self) -> int:
        """Env steps between evaluations."""
        return self.eval_every or max(1, self.total_env_steps // 10)

    @property
    def env_steps_per_update(self) -> int:
        """Env steps in a rollout of all environments."""
        return self.num_envs * self.learning.rollout_length


@dataclass(frozen=True, kw_only=True)
class Command(Generic[LearningT]):
    """What is asked for: a training, or a search for the best one."""

    # Unnamed, so that the groups of `--help` are called as its own parts are.
    training: Annotated[TrainConfig[LearningT], tyro.conf.arg(name="")]
    tuning: TuningConfig = field(default_factory=TuningConfig)


@dataclass
class Progress:
    """How far a training is; saved with every checkpoint."""

    env_steps: int = 0
    episodes: int = 0
    seconds: float = 0.0
    next_episode_seed: int = _TRAINING_SEED
    next_evaluation: int = 0
    skipped_updates: int = 0
    restarts: int = 0
    returns: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    best_score: float | None = None
    evaluations_since_best: int = 0


def main(arguments: Sequence[str]) -> int:
    """Train as a command line says, and return the exit status."""
    if "--doctor" in arguments:
        return examine()
    command = read_command_line(arguments)
    if command.tuning.tune:
        return search(command, given_fields(arguments))
    config = command.training
    folder = RunFolder(config.run_dir or default_run_dir(config))
    if folder.path.is_file():
        raise UsageError(f"--run-dir {folder.path} is a file; name a folder")
    if config.track:
        load_service(config.track, folder.path)
    begun = folder.config_file.exists() and not config.fresh
    if config.autotune:
        config = with_setting(config, folder.read_config() if begun else fastest_setting(config))
    if begun:
        refuse_other_config(folder, config)
    with until_interrupted() as signals:
        train(config, folder, signals)
    return 128 + signals[0] if signals else 0


def examine() -> int:
    """Tell what this machine has and lacks; the exit status says whether all is well."""
    status = 0
    for well, name, text in (*findings_about_learning(), *findings_about_games()):
        status |= not well
        print(f"{'ok ' if well else 'BAD'}  {name:18} {text}")
    return status


def search(command: Command[Any], given: set[str]) -> int:
    """Search hyper-parameters, say what was found, and return the exit status.

    Args:
        command: what is asked for.
        given: the fields that were given as flags.
    """
    config = command.training
    if config.autotune:
        raise UsageError("--tune and --autotune exclude each other: take what --autotune chose")
    facts = flat(asdict(config))
    plan = Plan(
        folder=config.run_dir or default_run_dir(config).with_name(f"{config.agent}-tune"),
        facts={n: _plain(v) for n, v in facts.items() if n not in _MAY_CHANGE - _JUDGES},
        space=choose_space(config.learning.search_space, facts, given, command.tuning.search),
        num_trials=command.tuning.trials,
        env=config.env,
        num_envs=config.num_envs,
        total_env_steps=config.total_env_steps,
        eval_every=config.evaluation_interval,
        eval_episodes=config.eval_episodes,
        seed=config.seed,
    )

    if config.track:
        load_service(config.track, plan.folder)

    def train_trial(values: Mapping[str, Any], folder: RunFolder, writer: KVWriter) -> None:
        trial = replace(with_fields(config, values), run_dir=folder.path, fresh=False)
        if folder.config_file.exists():
            refuse_other_config(folder, trial)
        with contextlib.redirect_stdout(sys.stderr):  # Only what was found is for others to read.
            train(trial, folder, signals, [writer])

    with until_interrupted() as signals:
        findings = tune(plan, train_trial, signals, fresh=config.fresh, failures=(TrainingError,))
    print_findings(Console(markup=False, emoji=False), findings)
    if findings.complete:
        best = findings.complete[0]
        run_dir = plan.folder.with_name(f"{plan.folder.name}-best-seed{config.seed}")
        tuned = replace(with_fields(config, best.values), run_dir=run_dir, fresh=False)
        default = default_config(config.env.env, config.agent)
        flags = as_arguments(tuned, default, always=("agent", "seed", *plan.space))
        print(f"score it:  python evaluate.py score {plan.run_folder(best.number).path}")
        print(f"train it:  python train.py {shlex.join([config.env.env, *flags])}")
    return 128 + signals[0] if signals else 0


def train(
    config: TrainConfig[Any],
    folder: RunFolder,
    signals: list[int],
    writers: Sequence[KVWriter] = (),
) -> None:
    """Set everything up, or back to where it was saved, and learn.

    Args:
        config: how.
        folder: where.
        signals: is filled when it is time to stop.
        writers: are told what is logged.
    """
    torch.manual_seed(config.seed)
    keep_memory()
    device = choose_device(config.device)
    if config.inference == "cuda-graph" and device.type != "cuda":
        raise UsageError("--inference cuda-graph needs a GPU; use eager or compiled")
    torch.set_num_threads(config.num_threads or torch.get_num_threads())
    envs = make_envs(config, config.num_envs, config.num_groups)
    with contextlib.closing(envs), contextlib.ExitStack() as lock:
        agent = make_agent(config, envs, device)
        lock.enter_context(folder.locked())
        progress, sampler_state = resume(folder, agent, config)
        if is_over(config, progress):
            print(f"{folder.path} is already trained for {progress.env_steps:,} env steps; ask for "
                  "more with --total-env-steps, or start over with --fresh")  # fmt: skip
            return
        # Nothing is removed before all that can be refused has been.
        if progress.env_steps == 0:
            folder.clear()
        folder.write_config(asdict(config), agent.policy.perception.precision)
        before, ceiling = replace(progress), random_env_steps_per_second(envs, _CEILING_STEPS)
        sampler = make_sampler(config, envs, agent, progress.next_episode_seed)
        if sampler_state:
            lost = sampler.load_state(sampler_state)
            if lost:
                print(f"{lost} of {config.num_envs} episodes begin anew: these games do not repeat "
                      "themselves, and cannot be gone on with", file=sys.stderr)  # fmt: skip
        collector: Collector = sampler
        if config.overlap and isinstance(sampler, Sampler):
            collector = OverlappedSampler(sampler)
        logger = RunLogger(
            folder.path, total=config.total_env_steps, start=progress.env_steps, writers=writers
        )
        about = flat(asdict(config))
        if config.track:
            resumed, say = progress.env_steps > 0, logger.progress.say
            tracker = Tracker(config.track, folder.path, about, resumed=resumed, say=say)
            logger.output_formats.append(tracker)
        logger.record_config(about, {"eval/mean_reward": 0.0})
        logger.record("time/ceiling_env_steps_per_s", ceiling)
        with contextlib.closing(logger), contextlib.closing(collector):
            learn(config, folder, envs, collector, agent, logger, progress, signals)
    report_end(folder, progress, interrupted=bool(signals))
    if progress.seconds > before.seconds:
        speed = (progress.env_steps - before.env_steps) / (progress.seconds - before.seconds)
        report_speed(collector, sampler, speed, ceiling)


def make_agent(config: TrainConfig[Any], envs: SharedVectorEnv, device: torch.device) -> Agent[Any]:
    """Make the agent that a configuration describes, with a new policy."""
    policy = build_policy(
        observation_specs(envs.single_observation_space, envs.metadata),
        envs.single_action_space,
        config.perception,
        normalize_obs=config.learning.normalize_obs,
        device=device,
        precision=choose_precision(config.precision, device),
    )
    agent: Agent[Any] = AGENTS[config.agent][1](
        policy,
        config.learning,
        num_envs=config.num_envs,
        total_updates=-(-config.total_env_steps // config.env_steps_per_update),
    )
    return agent


def make_sampler(
    config: TrainConfig[Any], envs: SharedVectorEnv, agent: Agent[Any], seed: int
) -> Sampler | SB3Sampler:
    """Make what collects rollouts for an agent."""
    if isinstance(agent, SB3Agent):
        return SB3Sampler(envs, SharedVecEnv(envs), agent, seed=seed)
    return Sampler(
        envs,
        agent.policy,
        rollout_length=config.learning.rollout_length,
        seed=seed,
        num_buffers=2 if config.overlap else 1,
        inference=config.inference,
    )


def is_over(config: TrainConfig[Any], progress: Progress) -> bool:
    """Tell whether a training has had its env steps, or has stopped getting better."""
    stands_still = config.patience and progress.evaluations_since_best >= config.patience
    return progress.env_steps >= config.total_env_steps or bool(stands_still)


def learn(
    config: TrainConfig[Any],
    folder: RunFolder,
    envs: SharedVectorEnv,
    collector: Collector,
    agent: Agent[Any],
    logger: RunLogger,
    progress: Progress,
    signals: list[int],
) -> None:
    """Collect, update, log, evaluate, save: until the end, a signal, or evaluations stand still.

    Raises:
        TrainingError: If games or updates fail again and again; what was learned is saved.
    """
    frames = frames_per_env_step(config.env)
    stopwatch, saved = collector.stopwatch, time.monotonic()
    say, restarts_before = logger.progress.say, progress.restarts
    update = GuardedUpdate(agent, folder, progress, say)
    # Only who stands still between two rollouts can say what it takes to go on from there.
    sampler = None if isinstance(collector, OverlappedSampler) else collector
    logger.restore_episodes(progress.returns, progress.lengths)
    recorder = make_recorder(config, folder, agent, progress)
    evaluation = PeriodicEvaluation(
        agent,
        make_envs(
            replace(config, env=config.env.whole_games()),
            min(config.num_envs, config.eval_episodes),
        ),
        config.env,
        folder=folder,
        logger=logger,
        num_episodes=config.eval_episodes,
        record=config.record,
    )

    def evaluate_if_due() -> None:
        if progress.env_steps >= min(progress.next_evaluation, config.total_env_steps):
            evaluate(config, folder, agent, evaluation, logger, progress, signals)

    with contextlib.closing(evaluation):
        try:
            evaluate_if_due()  # The last part may have ended in one.
            stopwatch.skip()
            while not signals and not is_over(config, progress):
                started = time.monotonic()
                collected = collector.collect(agent.num_updates)
                policy_lag = agent.num_updates - collected.version
                metrics = update(collected.rollout, collected.version)
                stopwatch.lap("update")
                seconds = time.monotonic() - started

                progress.env_steps += config.env_steps_per_update
                progress.seconds += seconds
                progress.episodes += len(collected.episodes)
                progress.next_episode_seed = collected.next_episode_seed
                env_steps_per_s = config.env_steps_per_update / seconds
                logger.record_episodes([episode.statistics for episode in collected.episodes])
                if recorder:
                    with going_on_without_a_disk(say):
                        recorder.take(collected.episodes, progress.env_steps)
                logger.record("train/policy_lag", policy_lag)
                logger.record("train/skipped_updates", progress.skipped_updates)
                logger.record_update(metrics)
                logger.record("time/fps", frames * env_steps_per_s)
                logger.record("time/env_steps_per_s", env_steps_per_s)
                logger.record("time/total_timesteps", progress.env_steps)
                logger.record("time/time_elapsed", progress.seconds)
                logger.record("time/episodes", progress.episodes)
                for phase, share in stopwatch.shares().items():
                    logger.record(f"time/share_{phase}", share)
                stopwatch.lap("logging")
                evaluate_if_due()
                stopwatch.skip()
                restarts = restarts_before + envs.num_restarts + evaluation.num_restarts
                if restarts > progress.restarts == restarts_before:
                    reason = envs.last_restart or evaluation.last_restart
                    say(f"{reason}; it is started anew, as others like it will be")
                progress.restarts = restarts
                logger.record("time/restarts", progress.restarts)
                progress.returns, progress.lengths = logger.last_episodes
                with going_on_without_a_disk(say):
                    logger.dump(progress.env_steps)
                if time.monotonic() - saved >= config.checkpoint_every_s:
                    save(folder, agent, config, progress, sampler, recorder, say)
                    saved = time.monotonic()
                stopwatch.lap("logging")
        except (EnvError, TrainingError) as error:
            save(folder, agent, config, progress, None, recorder, say)
            raise TrainingError(
                f"{error}; what was learned in {progress.env_steps:,} env steps is saved"
            ) from error
        if not save(folder, agent, config, progress, sampler, recorder, say):
            raise TrainingError(f"{folder.path} holds only what could be written before")


def evaluate(
    config: TrainConfig[Any],
    folder: RunFolder,
    agent: Agent[Any],
    evaluation: PeriodicEvaluation,
    logger: RunLogger,
    progress: Progress,
    signals: Sequence[int],
) -> None:
    """Score the policy and keep it if it is the best; a signal undoes all of that."""
    episodes = evaluation.play(signals)
    if signals:
        return
    score = score_episodes(episodes)
    while progress.next_evaluation <= progress.env_steps:
        progress.next_evaluation += config.evaluation_interval
    best = progress.best_score
    progress.evaluations_since_best += 1
    if best is None or score.mean > best:
        progress.evaluations_since_best = 0
    with going_on_without_a_disk(logger.progress.say):
        # Of equals the later one is kept: it has seen more.
        if best is None or score.mean >= best:
            save_policy_file(folder.best_file, agent, config, progress)
            progress.best_score = score.mean
        evaluation.keep(episodes, progress.env_steps)
    logger.record("eval/mean_reward", score.mean)
    logger.record("eval/mean_ep_length", score.mean_length)
    logger.progress.say(
        f"{progress.env_steps:>9,} env steps · evaluation {score.mean:,.2f} "
        f"± {score.std:,.2f} over {score.episodes} episodes"
    )


class GuardedUpdate:
    """Lets an agent learn, passes over what is not finite, and gives up where nothing else comes.

    Args:
        agent: who learns.
        folder: where the rollout goes that is the last one.
        progress: counts what is skipped.
        say: is told of the first that is.
    """

    def __init__(
        self, agent: Agent[Any], folder: RunFolder, progress: Progress, say: Callable[[str], None]
    ) -> None:
        self._agent, self._folder, self._progress, self._say = agent, folder, progress, say
        self._in_a_row = 0

    def __call__(self, rollout: Rollout, version: int) -> dict[str, float]:
        """Update, see `Agent.update`, and give the metrics; none of an update that is skipped.

        Raises:
            TrainingError: If too many are in a row.
        """
        try:
            metrics = self._agent.update(rollout, version=version)
        except NotFiniteError as error:
            self._in_a_row += 1
            self._progress.skipped_updates += 1
            if self._in_a_row == _SKIPPED_IN_A_ROW:
                file = self._folder.not_finite_file
                save_tensors(file, rollout.tensors(), {"what": str(error)})
                raise TrainingError(
                    f"{error}, in {self._in_a_row} updates in a row; {file} holds the last rollout"
                ) from error
            if self._progress.skipped_updates == 1:
                self._say(f"{error}: this update is skipped, as others like it will be")
            return {}
        self._in_a_row = 0
        return metrics


def read_command_line(arguments: Sequence[str]) -> Command[Any]:
    """Parse the command line; the defaults under it are the world's and the agent's preset.

    Raises:
        UsageError: If something on it is unknown or out of range.
        EnvError: If there is no such world.
    """
    asks_help = any(a in ("-h", "--help") for a in arguments)
    named = bool(arguments) and not arguments[0].startswith("-")
    if not named and not asks_help:
        raise UsageError("name a world first, as in: python train.py basic; --help tells more")
    env = canonical_name(arguments[0]) if named else "basic"
    agent = "ppo"
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if flag.startswith("--agent"):
            agent = flag.partition("=")[2] or value
    check_agent(agent)
    kind = AGENTS[agent][0]
    rest = [env, *arguments[1:]] if named else arguments
    command: Command[Any] = parse(
        Command[kind],  # type: ignore[valid-type] # chosen at run time
        rest,
        program="python train.py",
        description=__doc__,
        default=Command(training=default_config(env, agent)),
    )
    return command


def default_config(env: str, agent: str) -> TrainConfig[Any]:
    """Give the configuration that a world's and an agent's preset makes."""
    default = TrainConfig(env=World(env=env), learning=AGENTS[agent][0](), agent=agent)
    return with_fields(default, preset(env, agent))


def fastest_setting(config: TrainConfig[Any]) -> dict[str, Any]:
    """Try how a training is fastest here, print what was found, and give the fields to change."""
    keep_memory()
    device = choose_device(config.device)
    first = Setting(
        num_envs=config.num_envs,
        num_workers=min(config.num_workers or os.cpu_count() or 1, config.num_envs),
        num_groups=config.num_groups,
        rollout_length=config.learning.rollout_length,
        num_threads=config.num_threads or torch.get_num_threads(),
        precision=precision_name(choose_precision(config.precision, device)),
    )
    trials = autotune(
        first,
        lambda setting: SharedVectorEnv(config.env, *setting.worlds),
        lambda envs, setting: make_agent(with_setting(config, asdict(setting)), envs, device),
    )
    names = list(asdict(first))
    print(*(f"{name:>15}" for name in (*names, "env steps/s")))
    for trial in trials:
        values = [*asdict(trial.setting).values(), f"{trial.env_steps_per_s:,.0f}"]
        print(*(f"{value:>15}" for value in values))
    return asdict(trials[0].setting)


def with_setting(config: TrainConfig[Any], fields: dict[str, Any]) -> TrainConfig[Any]:
    """Take what --autotune chooses from flat or nested fields."""
    given = flat(fields)
    names = [field.name for field in fields_of(Setting)]
    chosen = {name: given[name] for name in names if name in given}
    tuned: TrainConfig[Any] = with_fields(config, chosen)
    return tuned


def default_run_dir(config: TrainConfig[Any]) -> Path:
    """Give the run folder of a configuration that names none."""
    return Path("runs") / folder_name(config.env.env) / f"{config.agent}-seed{config.seed}"


# What may change between two parts of one training. More env steps also stretch what is annealed.
_MAY_CHANGE = {"total_env_steps", "num_workers", "num_threads", "device", "precision", "autotune"}
_MAY_CHANGE |= {"run_dir", "fresh", "eval_every", "eval_episodes", "patience", "checkpoint_every_s"}
_MAY_CHANGE |= {"inference", "hang_after_s", "max_restarts", "record", "track"}
# What of it may not change within a search, whose trials are compared.
_JUDGES = {"total_env_steps", "eval_every", "eval_episodes", "patience"}


def refuse_other_config(folder: RunFolder, config: TrainConfig[Any]) -> None:
    """Go on only with the configuration that a run was begun with.

    Raises:
        FileError: If the folder's differs in what is learned.
    """
    # What a folder does not name is younger than it: the run was begun with the default.
    default = flat(asdict(TrainConfig(env=World(), learning=type(config.learning)())))
    before, now = default | flat(folder.read_config()), flat(asdict(config))
    for name, value in now.items():
        if name not in _MAY_CHANGE and _plain(before[name]) != _plain(value):
            raise FileError(
                f"{folder.path} holds a run with {name} {before[name]}, not {value}; "
                "choose another --run-dir, or start over with --fresh"
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """Flatten nested configuration; the names of all fields differ."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        result |= flat(value) if isinstance(value, dict) else {key: value}
    return result


def resume(
    folder: RunFolder, agent: Agent[Any], config: TrainConfig[Any]
) -> tuple[Progress, dict[str, Tensor]]:
    """Put the agent back to the folder's last checkpoint that is not damaged, or begin.

    Returns:
        How far it is, and the sampler's state, if one was saved.
    """
    if config.fresh or not folder.checkpoints:
        if folder.policy_file.exists() and not config.fresh:
            raise FileError(
                f"{folder.path} holds a policy but no checkpoint to go on from; choose another "
                "--run-dir, or start over with --fresh"
            )
        # Seeds of neighbouring trainings lie a million episodes apart.
        first = _TRAINING_SEED + config.seed * 1_000_003 % (_TRAINING_SEED // 2)
        return Progress(next_episode_seed=first, next_evaluation=config.evaluation_interval), {}
    newest, *older = folder.checkpoints
    say = functools.partial(print, file=sys.stderr)
    try:
        state, sampler_state = load_training(newest, agent, say)
    except DamagedError as error:
        if not older:
            raise
        say(f"{error}; going back to the one before it")
        state, sampler_state = load_training(older[0], agent, say)
    progress = decode(Progress, state)
    say(f"going on at {progress.env_steps:,} env steps in {folder.path}")
    return progress, sampler_state


def save(
    folder: RunFolder,
    agent: Agent[Any],
    config: TrainConfig[Any],
    progress: Progress,
    sampler: Sampler | SB3Sampler | None,
    recorder: TrainingRecorder | None,
    say: Callable[[str], None],
) -> bool:
    """Write a checkpoint and the latest policy, and tell whether they could be written.

    Args:
        folder: where.
        agent: what learns.
        config: how.
        progress: how far.
        sampler: who is between two rollouts; None if it is not, and begins new episodes some day.
        recorder: what of training is recorded; None if nothing is.
        say: is called with what goes wrong.
    """
    with going_on_without_a_disk(say) as written:
        state = sampler.state() if sampler else None
        save_training(folder.checkpoint_file(progress.env_steps), agent, asdict(progress), state)
        for file in folder.checkpoints[_KEPT_CHECKPOINTS:]:
            file.unlink()
        save_policy_file(folder.policy_file, agent, config, progress)
        if recorder:
            recorder.save()
        written.append(True)
    return bool(written)


@contextlib.contextmanager
def going_on_without_a_disk(say: Callable[[str], None]) -> Iterator[list[bool]]:
    """Say what could not be written, because a disk is full or gone, and go on.

    What is within may put something into the list at its end, to see whether it was reached.
    """
    reached: list[bool] = []
    try:
        yield reached
    except OSError as error:
        where = error.filename or "a file"
        say(f"{where} could not be written ({error.strerror}); going on, to try again later")


def make_envs(config: TrainConfig[Any], num_envs: int, num_groups: int = 1) -> SharedVectorEnv:
    """Make environments as configured."""
    for wad in strange_wads(config.env.env):
        warn_of_wad(wad)
    return SharedVectorEnv(
        config.env,
        num_envs,
        config.num_workers,
        num_groups,
        hang_after_s=config.hang_after_s,
        max_restarts=config.max_restarts,
    )


def make_recorder(
    config: TrainConfig[Any], folder: RunFolder, agent: Agent[Any], progress: Progress
) -> TrainingRecorder | None:
    """Make what records episodes of training, if any are to be recorded."""
    if not config.record:
        return None
    return TrainingRecorder(
        folder.episodes,
        env=asdict(config.env),
        game=fingerprint(config.env.env),
        gamma=config.learning.gamma,
        value_unit=lambda: agent.value_unit,
        interval=max(1, config.total_env_steps // _RECORDED_OF_TRAINING),
        env_steps=progress.env_steps,
    )


def save_policy_file(
    path: Path, agent: Agent[Any], config: TrainConfig[Any], progress: Progress
) -> None:
    """Write a policy with the world and the training it comes from."""
    about = About(
        agent=config.agent,
        seed=config.seed,
        env_steps=progress.env_steps,
        seconds=round(progress.seconds, 1),
        gamma=config.learning.gamma,
        value_unit=agent.value_unit,
    )
    save_policy(path, agent.policy, env=asdict(config.env), about=about)


def report_end(folder: RunFolder, progress: Progress, *, interrupted: bool) -> None:
    """Say what came of it and what can be done with it."""
    verb = "interrupted at" if interrupted else "trained for"
    print(f"{verb} {progress.env_steps:,} env steps in {progress.seconds:,.0f} s")
    if progress.best_score is not None:
        print(f"best evaluation during training: {progress.best_score:,.2f}")
    print(f"score it:  python evaluate.py score {folder.path}")
    print(f"watch it:  python evaluate.py replay {folder.path}")


def report_speed(
    collector: Collector, sampler: Sampler | SB3Sampler, env_steps_per_s: float, ceiling: float
) -> None:
    """Say how fast it was, beside games that nobody thinks about, and where the time went."""
    print(
        f"{env_steps_per_s:,.0f} env steps/s: {collector.stopwatch.summary()}; these games alone "
        f"make {ceiling:,.0f} env steps/s, you run at {100 * env_steps_per_s / ceiling:.0f} %"
    )
    if collector is not sampler:
        print(f"the sampler meanwhile: {sampler.stopwatch.summary()}")


def command() -> None:
    """Run as the console script `doomgrad-train`."""
    sys.exit(run(main, USER_ERRORS))


if __name__ == "__main__":
    command()
