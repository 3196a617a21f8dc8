"""Train an agent: `python train.py ENV [options]`; `python train.py ENV --help` lists the options.

ENV is a scenario (basic, ...), a Gymnasium id (CartPole-v1, ...), a Freedoom map (freedoom2:MAP01),
maps:KIND (generated maps), players:KIND (matches) or a path to a .cfg. Defaults come from the
preset of ENV, or of basic where ENV has none. The same command on a run folder resumes the run.
`python train.py see:TASK` trains perception alone, without an agent (see:digits, ...).
`python train.py ENV --tune` searches hyper-parameters.
`python train.py --doctor` checks this machine.
"""

from __future__ import annotations

from commands.start import prepare

prepare(__name__, THP_MEM_ALLOC_ENABLE="1")  # Large pages for large tensors.

import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Generic

import tyro
from stable_baselines3.common.logger import KVWriter

from commands.commandline import (
    UsageError,
    as_arguments,
    execute,
    given_fields,
    given_values,
    join_repeated,
    parse,
)
from commands.config_file import as_yaml, with_config_file
from agents.distributed import ALONE, Ranks, joined_ranks, launched_ranks
from envs import StoppedError, canonical_name, portable_name
from evaluation.printing import PlainConsole, print_line
from evaluation.protocol import pasteable
from storage.extensions import import_extensions
from storage.run_folder import RunFolder
from training.assemble import open_training
from training.autotune import fastest_setting, with_setting
from training.callbacks import Callback
from training.config import (
    AgentT,
    AnyTrainConfig,
    Choices,
    EncoderT,
    MapT,
    MemoryT,
    ObjectivesT,
    TrainConfig,
    choices_of,
    default_config,
    dotted,
    dotted_fields,
    part_types,
    with_values,
)
from training.doctor import check_machine
from training.errors import TrainingError
from training.initial import normalization_of
from training.maps import export_maps
from training.ranks import with_ranks
from training.resume import check_resumable
from training.signals import until_interrupted
from training.tracking import load_service
from training.training import Training
from training.tune.search import Plan
from training.tune.trials import TuningConfig, choose_space, print_results, tune


@dataclass(frozen=True, kw_only=True)
class Command(Generic[AgentT, EncoderT, MemoryT, ObjectivesT, MapT]):
    """A training run, or a search for the best one."""

    choices: Annotated[Choices, tyro.conf.arg(name="")]
    training: Annotated[
        TrainConfig[AgentT, EncoderT, MemoryT, ObjectivesT, MapT], tyro.conf.arg(name="")
    ]
    config: Path | None = None
    """A YAML file of flags and their values; the command line takes precedence over it."""
    print_config: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print such a file of all values, and exit."""
    export_wad: Path | None = None
    """Generated maps only: write those of the training (up to 99) into this WAD, and exit."""
    tuning: Annotated[TuningConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=TuningConfig)


def main(arguments: Sequence[str]) -> int:
    """Train as a command line says, and return the exit status."""
    if "--doctor" in arguments:
        return check_machine()
    if arguments and arguments[0].startswith("see:"):
        from commands import see  # Here, because drawing libraries take time to import.

        return see.main(arguments)
    launched = launched_ranks()
    given = given_fields(arguments)
    arguments = with_config_file(arguments)
    command = read_command_line(arguments)
    config = with_ranks(command.training, launched)
    if command.print_config:
        print(as_yaml(config.env.env, command.choices, config), end="")  # noqa: T201
        return 0
    if command.export_wad is not None:
        return export_maps(config, command.export_wad)
    if command.tuning.tune:
        if launched:
            raise UsageError("--tune shares trials between processes itself; leave out torchrun")
        return search(command, given)
    with joined_ranks(config.device) as ranks:
        fresh = config.fresh and not ranks.has_begun  # They resume if one of them has died.
        return train_as(replace(config, fresh=fresh), given, ranks)


def train_as(config: AnyTrainConfig, given: set[str], ranks: Ranks) -> int:
    """Train with the other ranks, if there are any, and return the exit status.

    Args:
        config: the configuration.
        given: names of the fields that were given as flags.
        ranks: the ranks.
    """
    folder = RunFolder(config.run_dir or config.default_run_dir)
    if config.track:
        load_service(config.track, folder.path)
    resumes = ranks.is_first and folder.config_file.exists() and not config.fresh
    if config.autotune:
        best = folder.read_config() if resumes else fastest_setting(config, given)
        config = with_setting(config, best)
    if resumes:
        check_resumable(folder, config)
    with until_interrupted() as signals:
        train(config, folder, signals, ranks=ranks)
    return 128 + signals[0] if signals else 0


def train(
    config: AnyTrainConfig,
    folder: RunFolder,
    signals: list[int],
    writers: Sequence[KVWriter] = (),
    callbacks: Sequence[Callback] = (),
    ranks: Ranks = ALONE,
) -> None:
    """Start a training run, or resume it, and run it to its end or to a signal.

    Args:
        config: the configuration.
        folder: the run folder.
        signals: is filled when the training is to stop.
        writers: receive each record that is logged.
        callbacks: are called while the training runs.
        ranks: the processes that train together.
    """
    with contextlib.suppress(StoppedError):  # It was interrupted before it began.
        with open_training(config, folder, signals, writers, callbacks, ranks) as training:
            if training is None:
                return
            learn(training)
        training.report()


def learn(training: Training) -> None:
    """Collect, update, evaluate, log, save: until the end, a signal, or stagnation.

    Raises:
        TrainingError: If environments or updates fail repeatedly; the progress is saved.
    """
    with training.saving_at_the_end():
        training.repeat_evaluation()
        while not training.is_over:
            collected = training.collect()
            metrics = training.update(collected)
            training.evaluate_if_due()
            training.log(collected, metrics)
            training.save_if_due()


def search(command: Command[Any, Any, Any, Any, Any], given: set[str]) -> int:
    """Search hyper-parameters, print what was found, and return the exit status.

    Args:
        command: the command line.
        given: names of the fields that were given as flags.
    """
    config = command.training
    if config.autotune:
        raise UsageError("--tune and --autotune exclude each other; pass what --autotune chose")
    differ = dotted_fields(config, lambda m: bool(m.get("resumable")) and not m["compares_trials"])
    free = {"num_ranks", *differ}
    start = {f.name: getattr(config.agent, f.name) for f in fields(config.agent)}
    facts = {n: v for n, v in dotted(config.as_dict()).items() if n not in free}
    plan = Plan(
        folder=config.run_dir or config.default_run_dir.with_name(f"{config.agent_name}-tune"),
        facts=facts | {"env.env": portable_name(config.env.env)},
        start=start,
        space=choose_space(config.agent.search_space, start, given, command.tuning.search),
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
        trial = replace(_with_agent(config, values), run_dir=folder.path, fresh=False)
        if folder.config_file.exists():
            check_resumable(folder, trial)
        with contextlib.redirect_stdout(sys.stderr):  # Only the result goes to stdout.
            train(trial, folder, signals, [writer])

    with until_interrupted() as signals:
        results = tune(plan, train_trial, signals, fresh=config.fresh, failures=(TrainingError,))
    print_results(PlainConsole(), results)
    if results.complete:
        best = results.complete[0]
        run_dir = plan.folder.with_name(f"{plan.folder.name}-best-seed{config.seed}")
        tuned = replace(_with_agent(config, best.values), run_dir=run_dir, fresh=False)
        arguments = command_line_of(replace(command, training=tuned), always=("seed", *plan.space))
        found = pasteable(plan.run_folder(best.number).path, config.env, config.import_)
        print_line(f"score it:  python evaluate.py score {found}")
        print_line(f"train it:  python train.py {shlex.join(arguments)}")
    return 128 + signals[0] if signals else 0


def _with_agent(config: AnyTrainConfig, values: Mapping[str, Any]) -> AnyTrainConfig:
    return with_values(config, {f"agent.{name}": value for name, value in values.items()})


def read_command_line(arguments: Sequence[str]) -> Command[Any, Any, Any, Any, Any]:
    """Parse the command line; the defaults are those of the presets.

    Raises:
        UsageError: If something on it is unknown or out of range.
        EnvError: If there is no such environment.
        UnknownNameError: If a registry has no entry of a name.
    """
    arguments = join_repeated(arguments)
    asks_help = any(a in ("-h", "--help") for a in arguments)
    named = bool(arguments) and not arguments[0].startswith("-")
    if not named and not asks_help:
        raise UsageError("name an environment first, as in: python train.py basic; see --help")
    env = canonical_name(arguments[0]) if named else "basic"
    imports = import_extensions(given_values(arguments, "import"))
    # The choices decide which flags there are.
    objectives = tuple(given_values(arguments, "objectives"))
    chosen = {n: given_values(arguments, n)[:1] for n in ("agent", "encoder", "memory")}
    default = default_config(
        env,
        *chosen["agent"],
        encoder=next(iter(chosen["encoder"]), None),
        memory=next(iter(chosen["memory"]), None),
        objectives=objectives,
    )
    if source := given_values(arguments, "perception-from"):
        default = _with_agent(default, normalization_of(Path(source[0])))
    choices = choices_of(default)
    command: Command[Any, Any, Any, Any, Any] = parse(
        Command[part_types(env, **asdict(choices))],  # type: ignore[misc] # chosen at run time
        [env, *arguments[1:]] if named else arguments,
        program="python train.py",
        description=__doc__,
        default=Command(choices=choices, training=default),
    )
    return replace(command, training=replace(command.training, import_=imports))


def command_line_of(
    command: Command[Any, Any, Any, Any, Any], *, always: Sequence[str] = ()
) -> list[str]:
    """Return the arguments that make a command, the inverse of `read_command_line`.

    Args:
        command: the command.
        always: names of fields whose flags are given even if they are the default.
    """
    config, choices = command.training, command.choices
    env = config.env.env
    default = default_config(env, choices.agent)
    flags = as_arguments(choices, choices_of(default), always=("agent",))
    default = default_config(env, **asdict(choices))
    return [env, *flags, *as_arguments(config, default, always=always)]


def command() -> None:
    """Run as a program."""
    execute(main, drops_output=True)


if __name__ == "__main__":
    command()
