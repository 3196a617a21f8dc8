"""Who is compared: run folders, policy files, seeds of one agent together, and built-in players."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.checkpoint import PolicyFile
from agents.commandline import UsageError
from agents.run import RunFolder, find_policy
from envs import EnvConfig
from envs.cfg import game_spec
from evaluation.protocol import native

BUILT_IN = ("random", "noop")
"""Players that learned nothing; they always play along."""
ZOO = Path(__file__).resolve().parent.parent / "zoo"
"""Where trained policies come with the project."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One trained policy.

    Attributes:
        path: the run folder or policy file it was found in.
        file: what is in it.
        config: its world, at native skill and time limit.
    """

    path: Path
    file: PolicyFile
    config: EnvConfig


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of a comparison: one policy, or several training seeds of one agent.

    Attributes:
        name: what it is called.
        contestants: one for each training seed.
    """

    name: str
    contestants: tuple[Contestant, ...]

    @property
    def config(self) -> EnvConfig:
        """The world that all were trained in."""
        return self.contestants[0].config


def locate(run: Path) -> Path:
    """Find `zoo/NAME` among the policies that come with the project, wherever that is."""
    if run.parts[:1] == ("zoo",) and not run.exists():
        return ZOO.joinpath(*run.parts[1:])
    return run


def find_entries(runs: Sequence[str], *, trust: bool) -> list[Entry]:
    """Find what a command line names.

    Folders whose names differ only in `-seedN`, and hold the same agent in the same world with the
    same perception, are seeds of one entry.

    Args:
        runs: run folders, policy files and patterns for them; built-in players may be among them.
        trust: whether packages may be imported that files name.

    Raises:
        UsageError: If a pattern finds nothing, the same policy is named twice, no policy is named,
            or a built-in player that a world does not have.
        FileError: If something is no policy.
    """
    learned = [run for run in runs if run not in BUILT_IN]
    if not learned:
        raise UsageError("random and noop always play along; name a run or a policy beside them")
    together: dict[tuple[object, ...], list[Contestant]] = {}
    for path in _expand(learned):
        file, _ = find_policy(locate(path))
        config = native(file, path, trust=trust)
        contestant = Contestant(path=path, file=file, config=config)
        key: tuple[object, ...]
        key = (_family(path), config, file.about.agent, file.policy.config)
        seeds = together.setdefault(key, [])
        if any(other.file.about.seed == file.about.seed for other in seeds):
            key = (*key, path)  # The same seed again is no further seed.
            seeds = together.setdefault(key, [])
        seeds.append(contestant)
        if "noop" in runs and game_spec(config.env) is None:
            raise UsageError(f"noop plays only Doom: in {config.env} no action does nothing")
    names = _names(list(together.values()))
    return [
        Entry(name=name, contestants=tuple(seeds))
        for name, seeds in zip(names, together.values(), strict=True)
    ]


def _names(groups: Sequence[Sequence[Contestant]]) -> list[str]:
    """Name each group of seeds as no other is named."""
    paths = [[str(contestant.path) for contestant in seeds] for seeds in groups]
    short = [own[0] if len(own) == 1 else _family(Path(own[0])) for own in paths]
    count = Counter(short)
    names = [
        name if name and count[name] == 1 else ", ".join(own)
        for name, own in zip(short, paths, strict=True)
    ]
    return [_printable(f"./{name}" if name in BUILT_IN else name) for name in names]


def _printable(name: str) -> str:
    # Files may be called anything: line feeds, escape sequences.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _expand(runs: Sequence[str]) -> list[Path]:
    """Resolve patterns; what a pattern finds beside policies is passed over."""
    paths: list[Path] = []
    for run in runs:
        if not glob.has_magic(run) or Path(run).exists():
            paths.append(Path(run))
            continue
        found = [path for path in map(Path, _matches(run)) if _holds_policy(locate(path))]
        if not found:
            raise UsageError(f"{run} matches no run folder and no policy file")
        paths += found
    places = Counter(locate(path).resolve() for path in paths)
    for path in paths:
        if places[locate(path).resolve()] > 1:
            raise UsageError(f"{path} is named twice")
    return paths


def _matches(pattern: str) -> list[str]:
    found = glob.glob(pattern)
    first, *rest = Path(pattern).parts
    if not found and first == "zoo":
        found = [f"zoo/{name}" for name in glob.glob(str(Path(*rest)), root_dir=ZOO)]
    return sorted(found)


def _holds_policy(path: Path) -> bool:
    if path.is_dir():
        return RunFolder(path).chosen_policy_file is not None
    # Of what a training writes, these end alike and are something else.
    other = path.parent.name == "checkpoint" or path == RunFolder(path.parent).not_finite_file
    return path.suffix == ".safetensors" and not other


def _family(path: Path) -> str:
    return re.sub(r"-seed\d+(?=$|/)", "", str(path))
