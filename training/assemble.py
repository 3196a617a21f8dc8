"""Making the parts of a training run from its configuration."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from stable_baselines3.common.logger import KVWriter
from torch import Tensor

from agents import (
    AGENTS,
    SB3_AGENTS,
    Agent,
    OverlappedSampler,
    Sampler,
    build_policy,
    make_objectives,
    observation_specs,
)
from agents.collector import Collector
from agents.device import choose_device, choose_precision, keep_memory
from agents.distributed import ALONE, Averaging, Ranks
from agents.sb3 import SB3Agent, SB3Sampler
from envs import SharedVectorEnv
from envs.doom.players import players_kind
from envs.fingerprint import episode_fingerprint
from envs.moved import own_files
from envs.sb3 import SharedVecEnv
from envs.speed import random_env_steps_per_second
from envs.vector.pool import usable_cores
from evaluation.opponents import OpponentEnvs
from evaluation.printing import print_line
from evaluation.protocol import LONGEST_EPISODE, bounded, is_bounded, warn_of_wads
from storage.files import check_writable
from storage.policy_file import check_can_be_read
from storage.run_folder import RunFolder
from training.about import about_policy
from training.callbacks import Callback
from training.config import AnyTrainConfig, dotted, with_values
from training.errors import TrainingError
from training.evaluation import PeriodicEvaluation
from training.initial import copy_encoders, initialize_from
from training.logger import RunLogger
from training.progress import Progress, is_finished
from training.ranks import expect_same, share_start
from training.recorder import TrainingRecorder
from training.resume import lost_episodes, resume
from training.saving import bring_policy_up_to_date
from training.self_play import SelfPlay, make_pool
from training.signals import stops_after
from training.teacher import keep_teacher, take_teacher
from training.tracking import Tracker
from training.training import Training

_LIMIT_STEPS = 100  # Env steps of each environment in which the limit without a policy is measured.
_GRACE_S = 2.0  # A rollout that takes longer after a signal is interrupted.
_SELVES = 20  # Copies of the policy that are frozen for self-play.
_RECORDED_OF_TRAINING = 20  # Episodes, evenly spaced, beside the first, the best and the worst.


@contextlib.contextmanager
def open_training(
    config: AnyTrainConfig,
    folder: RunFolder,
    signals: list[int],
    writers: Sequence[KVWriter] = (),
    callbacks: Sequence[Callback] = (),
    ranks: Ranks = ALONE,
) -> Iterator[Training | None]:
    """Start a training run, or resume it where it was saved.

    Args:
        config: the configuration.
        folder: the run folder.
        signals: is filled when the training is to stop.
        writers: receive each record that is logged.
        callbacks: are called while the training runs, at rank 0.
        ranks: the processes that train together, as many as in the configuration. Only rank 0 uses
            the folder.

    Yields:
        The training; None if it is finished already.

    Raises:
        AgentError: If the environments lack what an objective needs.
        EnvError: If the environments cannot be made.
        FileError: If the run in the folder cannot be resumed, or another process is training in it.
        RankError: If another rank has ended.
        PerceptionError: If the encoder cannot encode the observations.
        StoppedError: If it was interrupted before it began.
        TrainingError: If the device lacks what the configuration needs.
    """
    if ranks.is_first:
        check_writable(folder.path)  # Before anything starts.
    torch.manual_seed(config.seed)
    config = with_values(config, {"env.files": own_files(config.env.env)})
    keep_memory()
    device = choose_device(config.device)
    if device.type != "cuda":
        for flag, others in (("inference", "eager or compiled"), ("gradients", "eager")):
            if getattr(config, flag) == "cuda-graph":
                raise TrainingError(f"--{flag} cuda-graph needs a GPU; use {others}")
    shares = ranks.local_size > 1
    threads = _share_of_cores(ranks) if shares else torch.get_num_threads()
    torch.set_num_threads(config.num_threads or threads)
    say = functools.partial(print_line, file=sys.stderr)
    with contextlib.ExitStack() as stack:
        shares_envs = config.eval_envs == "shared"
        played = config
        if shares_envs:  # Each episode must end.
            time_limit = bounded(config.env).time_limit
            played = replace(config, env=replace(config.env, time_limit=time_limit))
        # Ranks finish a rollout, because they can only be saved together.
        stops = never if ranks.size > 1 else stops_after(signals, _GRACE_S)
        pool = make_pool(config, folder, device)
        envs = make_envs(played, config.num_envs, config.num_groups, stops=stops, ranks=ranks)
        stack.enter_context(contextlib.closing(envs))
        if left_out := envs.metadata.get("left_out"):
            say(
                f"{config.env.env} leaves out: {', '.join(left_out)}; --wrappers can turn it into "
                "numbers"
            )
        agent = make_agent(config, envs, device, ranks)
        expect_same(ranks, config)
        progress = Progress()
        collector_state: dict[str, Tensor] = {}
        if ranks.is_first:
            stack.enter_context(folder.locked(say))
            progress, collector_state = start_or_resume(folder, agent, config, say)
            ranks.begin()
        progress, collector_state = share_start(ranks, agent, config, progress, collector_state)
        if is_finished(config, progress):
            yield None
            return
        agent.learn_together(Averaging(ranks, config.sync_every))
        env_limit = sum(ranks.exchange(random_env_steps_per_second(envs, _LIMIT_STEPS)))
        if pool is not None:
            about = about_policy(config, agent, progress.env_steps)
            pool.begin(agent.policy, asdict(config.env), about, config.import_)
            every = config.self_play.freeze_every or max(1, config.total_env_steps // _SELVES)
            callbacks = (*callbacks, SelfPlay(pool, every))
            assert isinstance(envs, OpponentEnvs)
            envs.rivals = pool  # Only now: matches of random actions say nothing about the policy.
        collector = make_collector(config, envs, agent, progress.next_episode_seed)
        stack.enter_context(contextlib.closing(collector))
        if collector_state and (lost := collector.load_state(collector_state)):
            say(lost_episodes(lost))
        logger = make_logger(config, folder, progress, writers) if ranks.is_first else silent()
        stack.enter_context(contextlib.closing(logger))
        logger.record("time/limit_env_steps_per_s", env_limit)
        evaluation = None
        if config.eval_envs != "none" and ranks.is_first:
            stops = stops_after(signals)
            evaluation_envs = envs if shares_envs else make_evaluation_envs(config, stops)
            stack.enter_context(contextlib.closing(evaluation_envs))
            if is_bounded(evaluation_envs.config):
                say(
                    f"{config.env.env} registers no time limit: evaluations end an episode after "
                    f"{LONGEST_EPISODE:,} env steps; --time-limit sets another limit"
                )
            evaluation = PeriodicEvaluation(
                agent,
                evaluation_envs,
                evaluation_envs.config,
                folder=folder,
                logger=logger,
                num_episodes=config.eval_episodes,
                record=config.record,
                collector=collector if shares_envs else None,
                stops=stops,
            )
        yield Training(
            config=config,
            folder=folder,
            envs=envs,
            agent=agent,
            collector=collector,
            evaluation=evaluation,
            logger=logger,
            recorder=make_recorder(config, folder, agent, progress) if ranks.is_first else None,
            progress=progress,
            signals=signals,
            env_limit=env_limit,
            callbacks=callbacks if ranks.is_first else (),
            ranks=ranks,
        )


def start_or_resume(
    folder: RunFolder, agent: Agent[Any], config: AnyTrainConfig, say: Callable[[str], None]
) -> tuple[Progress, dict[str, Tensor]]:
    """Start a training in a folder that is locked, or restore what was saved there.

    Args:
        folder: the run folder.
        agent: the agent, which is restored, or initialised as configured.
        config: the configuration, which is written into the folder.
        say: is called with lines about what the training starts from.

    Returns:
        The progress, which may be that of a finished training, and the collector's state, empty if
        none was saved.
    """
    folder.remove_leftovers()
    teacher = take_teacher(config, folder, agent)
    begins = config.fresh or not folder.checkpoints
    progress, collector_state = resume(folder, agent, config)
    if is_finished(config, progress):
        bring_policy_up_to_date(folder, agent, config, progress)
        print_line(
            f"{folder.path} is already trained for {progress.env_steps:,} env steps; raise "
            "--total-env-steps, or start over with --fresh"
        )
        return progress, {}
    # Nothing is removed before everything that can be refused has been checked.
    if begins:
        if config.init_from:
            say(initialize_from(config.init_from, agent, config))
        if config.perception_from:
            say(copy_encoders(config.perception_from, agent))
        folder.clear()
        keep_teacher(folder, teacher)
    folder.write_config(config.as_dict(), agent.policy.perception.precision)
    return progress, collector_state


def never() -> bool:
    """Return False: environments are always waited for."""
    return False


def silent() -> RunLogger:
    """Return a logger that writes and shows nothing."""
    return RunLogger(None, total=1, start=0)


def _share_of_cores(ranks: Ranks) -> int:
    """Return the number of CPU cores for each rank on this machine, at least 1."""
    return max(1, len(usable_cores()) // ranks.local_size)


def make_envs(
    config: AnyTrainConfig,
    num_envs: int,
    num_groups: int = 1,
    *,
    stops: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> SharedVectorEnv:
    """Return environments as configured; for `stops`, see `SharedVectorEnv`.

    The ranks of a machine share its cores, and all ranks share the seeds. In matches of policies,
    the other players act at random until they are given `rivals`.
    """
    warn_of_wads(config.env.env)
    workers = config.num_workers
    shares = ranks.local_size > 1
    if workers is None and shares:
        workers = min(num_envs, _share_of_cores(ranks))
    make_them: Callable[..., SharedVectorEnv] = SharedVectorEnv
    if players_kind(config.env.env) is not None and config.env.opponent == "self":
        make_them = functools.partial(OpponentEnvs, rival_seed=config.seed)
    return make_them(
        config.env,
        num_envs=num_envs,
        num_workers=workers,
        num_groups=num_groups,
        first_core=ranks.local_rank * (workers or 0) if shares else None,
        seed_stride=ranks.size * num_envs,
        hang_after_s=config.hang_after_s,
        max_restarts=config.max_restarts,
        stops=stops,
    )


def make_agent(
    config: AnyTrainConfig, envs: SharedVectorEnv, device: torch.device, ranks: Ranks = ALONE
) -> Agent[Any]:
    """Return the agent that a configuration describes, with a new policy."""
    policy = build_policy(
        observation_specs(envs.single_observation_space, envs.metadata),
        envs.single_action_space,
        config.perception,
        normalize_obs=config.agent.normalize_obs,
        device=device,
        precision=choose_precision(config.precision, device),
    )
    check_can_be_read(policy)
    agent: Agent[Any] = AGENTS[config.agent_name][1](
        policy,
        config.agent,
        num_envs=config.num_envs,
        total_updates=-(-config.total_env_steps // config.env_steps_per_update),
        objectives=make_objectives(policy, config.objective_configs, envs.info_keys),
    )
    if captures_gradients(config, device, ranks):
        agent.capture_gradients()
    return agent


def captures_gradients(config: AnyTrainConfig, device: torch.device, ranks: Ranks) -> bool:
    """Return whether gradients are computed as CUDA graphs: auto means where that was measured."""
    if config.gradients != "auto":
        return config.gradients == "cuda-graph"
    measured = config.agent_name not in SB3_AGENTS and not config.overlap and ranks.size == 1
    return device.type == "cuda" and measured


def make_collector(
    config: AnyTrainConfig, envs: SharedVectorEnv, agent: Agent[Any], seed: int
) -> Collector:
    """Return what collects rollouts for an agent.

    Args:
        config: the configuration.
        envs: the environments; nothing else may step them from now on.
        agent: the agent.
        seed: seed of the first episodes.
    """
    if isinstance(agent, SB3Agent):
        return SB3Sampler(envs, SharedVecEnv(envs), agent, seed=seed)
    sampler = Sampler(
        envs,
        agent.policy,
        rollout_length=config.agent.rollout_length,
        seed=seed,
        num_buffers=2 if config.overlap else 1,
        inference=config.inference,
        targets=agent.target_names,
        ranks=agent.averaging.ranks,
    )
    return OverlappedSampler(sampler) if config.overlap else sampler


def make_logger(
    config: AnyTrainConfig, folder: RunFolder, progress: Progress, writers: Sequence[KVWriter]
) -> RunLogger:
    """Return the logger of a run folder, and of a tracker if one is configured."""
    logger = RunLogger(
        folder.path, total=config.total_env_steps, start=progress.env_steps, writers=writers
    )
    values = dotted(config.as_dict())
    if config.track:
        resumed, say = progress.env_steps > 0, logger.progress.say
        tracker = Tracker(config.track, folder.path, values, resumed=resumed, say=say)
        logger.output_formats.append(tracker)
    logger.record_config(values, {"eval/mean_reward": 0.0})
    logger.restore_episodes(progress.returns, progress.lengths)
    return logger


def make_evaluation_envs(
    config: AnyTrainConfig, stops: Callable[[], bool] = lambda: False
) -> SharedVectorEnv:
    """Return the environments of evaluations, which play whole games that end."""
    whole = replace(config, env=bounded(config.env).without_targets())
    return make_envs(whole, min(config.num_envs, config.eval_episodes), stops=stops)


def make_recorder(
    config: AnyTrainConfig, folder: RunFolder, agent: Agent[Any], progress: Progress
) -> TrainingRecorder | None:
    """Return what records episodes of training, or None if nothing is to be recorded.

    Shaped rewards are not recorded: a replay could not compare them with those of the engine.
    """
    if not config.record or config.env.shaping:
        return None
    return TrainingRecorder(
        folder.episodes,
        env=asdict(config.env),
        game=functools.partial(episode_fingerprint, config.env),
        gamma=config.agent.gamma,
        value_unit=lambda: agent.value_unit,
        interval=max(1, config.total_env_steps // _RECORDED_OF_TRAINING),
        env_steps=progress.env_steps,
    )
