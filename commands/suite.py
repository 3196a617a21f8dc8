"""`evaluate.py suite`: train agents on scenarios with several seeds, and compare them all.

Policies are trained one after another, each by a `train.py` command in a process of its own.
Processes that run the same suite at once, on machines that share its folder, share the trainings:
each holds a lock on the one that it trains, which the kernel releases when it ends.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import tyro

from commands import compare
from commands.commandline import UsageError, as_flag
from commands.options import ScoringOptions, check_at_least_one, check_folder
from evaluation.printing import print_line
from processes.child import start_python
from storage.files import check_writable
from training.signals import STOPPING, handling_signals
from training.tune.locks import Locks

# Of train.py: set by suite itself, or not those of a training.
_OWN_FLAGS = (
    *("agent", "seed", "run-dir", "total-env-steps", "fresh"),
    *("config", "print-config", "tune", "trials", "search", "autotune", "doctor", "help"),
)
_TRAIN = Path(__file__).resolve().parent.parent / "train.py"
_Training = tuple[str, str, int, tuple[str, ...]]
_INTERRUPTED = [128 + number for number in STOPPING]
_RUN_FILE = "import runpy; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"


@dataclass(frozen=True, kw_only=True)
class SuiteOptions(ScoringOptions):
    """Train agents on scenarios with several seeds, score them all, and write one table.

    The same command resumes a suite that was interrupted, and uses what is trained as it is;
    several processes that run it at once share the work.
    """

    scenarios: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[ENV ...]")
    ] = ()
    """Environments, each trained with its preset. None: every scenario that comes with ViZDoom."""
    agents: tuple[str, ...] = ("ppo",)
    """The agents to train."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training seeds."""
    train: bool = True
    """Train what is not trained yet; otherwise, only compare the trained policies."""
    sweep: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FLAG=VALUE,... ...")] = ()
    """Flags of train.py to vary, each with every value: `memory=none,lstm overlap=true,false`."""
    total_env_steps: int | None = None
    """Length of each training run. None: the preset's."""
    out: Path = Path("runs/suite")
    """The folder to write to."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_folder(self.out)
        for name in ("agents", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name}: name at least one")
        if not all(0 <= seed < 2**31 for seed in self.seeds):
            raise ValueError("seeds must be between 0 and 2^31 - 1")
        if self.total_env_steps is not None:
            check_at_least_one(self, "total_env_steps")
        for flag, (name, values) in zip(self.sweep, self.swept, strict=True):
            if not name or not all(values.split(",")):
                raise ValueError(
                    f"--sweep {flag}: give a flag and its values, as in memory=none,lstm"
                )
            try:
                shlex.split(values)
            except ValueError as error:
                raise ValueError(f"--sweep {flag}: {error}") from None
            if name.replace("_", "-") in _OWN_FLAGS:
                raise ValueError(f"--sweep {flag}: {name} cannot be swept")

    @property
    def swept(self) -> list[tuple[str, str]]:
        """The flags to sweep, without hyphens in front, each with its values as they were given."""
        flags = (flag.lstrip("-").partition("=") for flag in self.sweep)
        return [(name, values) for name, _, values in flags]

    @property
    def settings(self) -> list[tuple[str, ...]]:
        """Every combination of values to sweep, each as `flag=value`; one without any if none."""
        return list(product(*([f"{n}={v}" for v in values.split(",")] for n, values in self.swept)))

    def run_dir(self, scenario: str, agent: str, seed: int, setting: Sequence[str] = ()) -> Path:
        """Return the run folder of one training run."""
        from envs import folder_name

        name = "-".join((agent, *(re.sub(r"[^\w.=-]+", "_", value) for value in setting)))
        return self.out / folder_name(scenario) / f"{name}-seed{seed}"

    def train_arguments(
        self, scenario: str, agent: str, seed: int, setting: Sequence[str] = ()
    ) -> list[str]:
        """Return the arguments of `train.py` for one training run.

        Args:
            scenario: the environment.
            agent: the agent.
            seed: the training seed.
            setting: one of `settings`.
        """
        run_dir = str(self.run_dir(scenario, agent, seed, setting))
        arguments = [scenario, "--agent", agent, "--seed", str(seed), "--run-dir", run_dir]
        for name, _, value in (flag.partition("=") for flag in setting):
            switch = {"true": True, "false": False}.get(value)
            arguments += as_flag(name, tuple(shlex.split(value)) if switch is None else switch)
        if self.total_env_steps is not None:
            arguments += ["--total-env-steps", str(self.total_env_steps)]
        return arguments


def run(options: SuiteOptions) -> None:
    """Train what is not trained yet, then compare everything."""
    from evaluation.report.skill import write_table

    options.check_writable()
    check_writable(options.out)
    runs = train_all(options) if options.train else trained(options)
    comparison = compare.CompareOptions(
        runs=tuple(map(str, runs)),
        out=options.out / "compare",
        trust=options.trust,
        episodes=options.episodes,
        seed=options.seed,
        greedy=options.greedy,
        num_envs=options.num_envs,
        device=options.device,
        json=options.json,
    )
    write_table(compare.compare_all(comparison), options.out / "compare")
    print_line(f"written to {options.out / 'compare'}: table.md, of all environments and seeds")


def train_all(options: SuiteOptions) -> list[Path]:
    """Train everything that is not trained yet: first everything with one seed, then the next.

    An interrupted training run is resumed; a complete one is only reported.

    Returns:
        The run folders.

    Raises:
        UnknownNameError: If there is no such agent.
        UsageError: If a training run fails.
        EnvError: If there is no such environment.
        SystemExit: If a training run was interrupted; it is saved.
    """
    trainings = plan(options)
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Locks(options.out / "lock")) as locks:
        postponed = _train_each(options, trainings, locks)
        if postponed:
            print_line()
            print_line(f"waiting for trainings of other processes: {len(postponed)}")
        # Those that another process has completed by then are only reported.
        _train_each(options, postponed, locks, wait=True)
    return [options.run_dir(*training) for training in trainings]


def trained(options: SuiteOptions) -> list[Path]:
    """Return the run folders that hold a policy, and report which of the others do not.

    Raises:
        UsageError: If there are none; the other errors are those of `plan`.
    """
    from storage.run_folder import RunFolder

    folders = [options.run_dir(*training) for training in plan(options)]
    found = [folder for folder in folders if RunFolder(folder).chosen_policy_file]
    if not found:
        raise UsageError(f"nothing is trained in {options.out}; leave out --no-train")
    if missing := [str(folder) for folder in folders if folder not in found]:
        print_line(f"not trained, and left out: {', '.join(missing)}")
    return found


def plan(options: SuiteOptions) -> list[_Training]:
    """Return every training of the suite: first everything with one seed, then the next.

    Raises:
        UnknownNameError: If there is no such agent.
        UsageError: If a flag cannot be swept, or code of the user's own is not trusted.
        EnvError: If there is no such environment.
    """
    from agents import AGENTS
    from envs import SCENARIOS, canonical_name
    from envs.registry import is_imported
    from perception.lookup import check_name

    for agent in options.agents:
        check_name(AGENTS, agent, "agent")
    scenarios = [canonical_name(scenario) for scenario in options.scenarios or SCENARIOS]
    own_code = {"import", "wrappers"} & dict(options.swept).keys()
    if not options.trust and (own_code or any(map(is_imported, scenarios))):
        raise UsageError("the policies are scored with code of your own: add --trust")
    settings = options.settings
    folders = {options.run_dir("", "", 0, setting) for setting in settings}
    if len(folders) < len(set(settings)):
        raise UsageError(
            "--sweep: two values would have the same run folder; write them differently"
        )
    if options.sweep:
        for agent, setting in product(options.agents, settings):
            _check(options.train_arguments(scenarios[0], agent, 0, setting))
    return [
        (scenario, agent, seed, setting)
        for seed, scenario, agent, setting in dict.fromkeys(
            product(options.seeds, scenarios, options.agents, settings)
        )
    ]


def _train_each(
    options: SuiteOptions, trainings: Sequence[_Training], locks: Locks, *, wait: bool = False
) -> list[_Training]:
    """Train everything that no other process trains.

    Args:
        options: the options.
        trainings: environment, agent, seed and setting of each training.
        locks: the locks on trainings.
        wait: whether to wait for other processes that train one of them.

    Returns:
        The trainings that other processes work on.

    Raises:
        UsageError: If a training run fails.
        SystemExit: If a training run was interrupted; it is saved.
    """
    postponed = []
    for training in trainings:
        number = _lock_number(options.out, options.run_dir(*training))
        if not locks.acquire(number, wait=wait):
            postponed.append(training)
            continue
        if _is_complete(options, training):
            print_line(f"{options.run_dir(*training)} is trained already")
            locks.release(number)
            continue
        arguments = options.train_arguments(*training)
        print_line()
        print_line(f"$ python train.py {shlex.join(arguments)}")
        if train_alone(arguments):
            scenario, agent, seed, _ = training
            raise UsageError(f"training {scenario} with {agent}, seed {seed}, failed; see above")
        locks.release(number)
    return postponed


def _is_complete(options: SuiteOptions, training: _Training) -> bool:
    """Return whether `train.py` would only report that a training is complete."""
    from storage.run_folder import RunFolder
    from training.config import default_config
    from training.resume import is_complete

    env, agent, *_ = training
    total = options.total_env_steps or default_config(env, agent).total_env_steps
    return is_complete(RunFolder(options.run_dir(*training)), total)


def _lock_number(out: Path, run_dir: Path) -> int:
    """Return the number of the lock on a training, which is the same in all processes."""
    return zlib.crc32(str(run_dir.relative_to(out)).encode())


def _check(arguments: list[str]) -> None:
    """Check that `train.py` accepts arguments.

    Raises:
        UsageError: If it does not.
    """
    words = [str(_TRAIN), *arguments, "--print-config"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start_python(_RUN_FILE, words, when_orphaned=signal.SIGTERM, **pipes) as process:
        _, said = process.communicate()
    if process.returncode:
        raise UsageError(said.decode().strip().rpartition("error: ")[2])


def train_alone(arguments: list[str]) -> int:
    """Train in a process of its own, and return its exit status.

    Signals are handled when it has ended: Ctrl-C reaches all processes of a terminal, and others,
    which may reach only this one, are passed on. If this process is killed, the training saves and
    ends too.

    Raises:
        SystemExit: If it was interrupted; it has ended by itself, and is saved.
    """
    received: list[int] = []
    processes: list[subprocess.Popen[bytes]] = []

    def remember(number: int, frame: object) -> None:
        received.append(number)
        if number != signal.SIGINT:
            for process in processes:
                process.send_signal(number)

    with (
        handling_signals(remember),
        start_python(_RUN_FILE, [str(_TRAIN), *arguments], when_orphaned=signal.SIGTERM) as process,
    ):
        processes.append(process)
        status = process.wait()
    if received or status in _INTERRUPTED:
        raise SystemExit(128 + received[0] if received else status)
    return status
