"""The entries of a comparison: run folders and policy files, grouped by agent."""

from __future__ import annotations

import glob
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agents import AGENTS
from envs import EnvConfig
from envs.doom.cfg import game_spec
from evaluation.errors import EvaluationError
from evaluation.protocol import native
from processes.streams import printable
from storage.files import FileError
from storage.onnx_file import SUFFIX, PlayableFile
from storage.policy_file import PolicyFile
from storage.run_folder import CHECKPOINTS, RunFolder, find_player

BASELINES = ("random", "noop")
"""Untrained baselines, which are part of every comparison."""
ZOO = Path(__file__).resolve().parent.parent / "zoo"
"""The folder of trained policies that come with the project."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One trained policy.

    Attributes:
        path: the run folder or policy file.
        file: content of the policy file.
        config: the environment, at native skill and time limit.
    """

    path: Path
    file: PlayableFile
    config: EnvConfig


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One policy, or several training seeds of one agent, as one entry of a comparison.

    Attributes:
        name: unique in the comparison.
        contestants: one for each training seed.
    """

    name: str
    contestants: tuple[Contestant, ...]

    @property
    def config(self) -> EnvConfig:
        """The environment in which all of its policies were trained."""
        return self.contestants[0].config


def locate(run: Path) -> Path:
    """Return a path as it is, or for `zoo/NAME` that of the policy that comes with the project."""
    if run.parts[:1] == ("zoo",) and not run.exists():
        return ZOO.joinpath(*run.parts[1:])
    return run


def is_run(run: Path, folder: RunFolder) -> bool:
    """Return whether a whole run was named, so that results may be written into its folder.

    A policy file in a run folder is not the run: it may not be the run's best policy.

    Args:
        run: the path that was named.
        folder: the folder that `find_player` returned for it.
    """
    return folder.holds_run and not run.is_file()


def output_folder(run: Path, folder: RunFolder) -> Path:
    """Return the folder into which a command writes by default.

    It is the run folder or the folder of the policy file. For a policy that comes with the project,
    it is `runs/zoo/NAME`, so that nothing is written into the project itself.

    Args:
        run: the path that was named.
        folder: the folder that `find_player` returned for it.
    """
    place = locate(run).resolve()
    if place.is_relative_to(ZOO):
        return Path("runs", "zoo", *place.relative_to(ZOO).parts[:1])
    return folder.path if folder.holds_run or run.is_file() else Path()


def find_entries(runs: Sequence[str], *, trust: bool) -> list[Entry]:
    """Find the policies that a command line names, and group those of one agent.

    Folders whose names differ only in `-seedN`, and that hold the same agent with the same settings
    in the same environment with the same perception, are training seeds of one entry.

    Args:
        runs: run folders, policy files, and patterns for them. The names of baselines
            are accepted and change nothing.
        trust: whether packages that files name may be imported.

    Raises:
        EvaluationError: If a pattern matches nothing, a policy is named twice, no policy is named,
            or a baseline is named that the environment does not have.
        FileError: If a file is not a policy.
    """
    named = [run for run in runs if run not in BASELINES]
    if not named:
        raise EvaluationError(
            "random and noop are part of every comparison; name a run or a policy as well"
        )
    groups: dict[tuple[object, ...], list[Contestant]] = {}
    envs: dict[object, str] = {}
    for path in expand(named, holds_policy):
        file, folder = find_player(locate(path), trust=trust)
        config = native(file, path, trust=trust)
        # Copies of the same files are one environment.
        config = replace(config, env=envs.setdefault(config.files or config.env, config.env))
        contestant = Contestant(path=path, file=file, config=config)
        key: tuple[object, ...]
        key = (family(path), config, file.about.agent, _network(file), _settings(file, folder))
        seeds = groups.setdefault(key, [])
        if any(other.file.about.seed == file.about.seed for other in seeds):
            key = (*key, path)  # The same seed again is a separate entry.
            seeds = groups.setdefault(key, [])
        seeds.append(contestant)
        if "noop" in runs and game_spec(config.env) is None:
            raise EvaluationError(
                f"noop exists only in Doom: no action of {config.env} does nothing; leave noop out"
            )
    names = names_of([[seed.path for seed in seeds] for seeds in groups.values()])
    return [
        Entry(name=name, contestants=tuple(seeds))
        for name, seeds in zip(names, groups.values(), strict=True)
    ]


def labelled(entries: Sequence[Entry], labels: Sequence[str]) -> list[Entry]:
    """Return entries with other names; the arguments and errors are those of `own_names`."""
    names = own_names([entry.name for entry in entries], labels)
    return [replace(entry, name=name) for entry, name in zip(entries, names, strict=True)]


def own_names(names: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the names of entries: the user's own, if there are any.

    Args:
        names: names of the entries.
        labels: another name for each of them, or none at all.

    Raises:
        EvaluationError: If there are not as many labels as entries, or labels are not unique.
    """
    if not labels:
        return list(names)
    if len(labels) != len(names):
        raise EvaluationError(
            f"--labels: name each of the {len(names)} entries ({', '.join(names)}), "
            f"got {len(labels)}"
        )
    taken = [*labels, *BASELINES]
    for label in labels:
        if taken.count(label) > 1 or not label.strip():
            raise EvaluationError(
                f"--labels {label!r}: labels must differ, also from the baselines"
            )
    return [printable(label) for label in labels]


def names_of(groups: Sequence[Sequence[Path]]) -> list[str]:
    """Return a unique name for each group of paths, which are the seeds of one agent."""
    paths = [[str(path) for path in seeds] for seeds in groups]
    short = [own[0] if len(own) == 1 else family(Path(own[0])) for own in paths]
    count = Counter(short)
    names = [
        name if name and count[name] == 1 else ", ".join(own)
        for name, own in zip(short, paths, strict=True)
    ]
    return [printable(f"./{name}" if name in BASELINES else name) for name in names]


def expand(runs: Sequence[str], is_wanted: Callable[[Path], bool]) -> list[Path]:
    """Resolve patterns.

    Args:
        runs: paths and patterns.
        is_wanted: whether a path that matches a pattern is meant; others are ignored.

    Raises:
        EvaluationError: If a pattern matches nothing, or a path is named twice.
    """
    paths: list[Path] = []
    for run in runs:
        if not glob.has_magic(run) or Path(run).exists():
            paths.append(Path(run))
            continue
        found = [path for path in map(Path, _matches(run)) if is_wanted(path)]
        if not found:
            raise EvaluationError(f"{run} matches no run folder and no policy file")
        paths += found
    places = Counter(locate(path).resolve() for path in paths)
    for path in paths:
        if places[locate(path).resolve()] > 1:
            raise EvaluationError(f"{path} is named twice; name each policy once")
    return paths


def _matches(pattern: str) -> list[str]:
    found = glob.glob(pattern)
    first, *rest = Path(pattern).parts
    if not found and first == "zoo":
        found = [f"zoo/{name}" for name in glob.glob(str(Path(*rest)), root_dir=ZOO)]
    return sorted(found)


def _network(file: PlayableFile) -> object:
    """Return what two policies have in common if they are the same network, trained differently."""
    return file.policy.config if isinstance(file, PolicyFile) else file.network


def _settings(file: PlayableFile, folder: RunFolder) -> str:
    """Return how a policy was trained, as JSON; empty if its folder does not say."""
    if not folder.holds_run:
        return ""
    try:
        stored = folder.read_config()
    except FileError:
        return ""
    kind, _ = AGENTS.get(file.about.agent, (None, None))
    # A field that the folder lacks is newer than it: it was trained with the default.
    agent = (asdict(kind()) if kind else {}) | stored["agent"]
    settings = {"agent": agent} | {name: stored[name] for name in ("objectives", "num_envs")}
    return json.dumps(settings, sort_keys=True)


def holds_policy(named: Path) -> bool:
    """Return whether a path is a run folder, a policy file or an ONNX file."""
    path = locate(named)
    if path.is_dir():
        return RunFolder(path).chosen_policy_file is not None
    # A training run also writes these files with the same suffix, which are not policies.
    run = RunFolder(path.parent)
    other = path.parent.name == CHECKPOINTS or path in (run.not_finite_file, run.teacher_file)
    return path.suffix == SUFFIX or (path.suffix == ".safetensors" and not other)


def family(path: Path) -> str:
    """Return a path without the seed, which all training seeds of one agent share."""
    return re.sub(r"-seed\d+(?=$|/)", "", str(path))
