"""Who is compared: run folders, policy files, seeds of one agent together, and built-in players."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.checkpoint import PolicyFile
from agents.commandline import UsageError
from agents.run import find_policy
from envs import EnvConfig
from evaluation.protocol import native

BUILT_IN = ("random", "noop")
"""Players that learned nothing."""
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
        runs: run folders, policy files and patterns for them.
        trust: whether packages may be imported that files name.

    Raises:
        UsageError: If a pattern finds nothing, or the same policy is named twice.
        FileError: If something is no policy.
    """
    together: dict[tuple[object, ...], list[Contestant]] = {}
    for path in _expand(runs):
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
    entries = []
    for seeds in together.values():
        name = str(seeds[0].path) if len(seeds) == 1 else _family(seeds[0].path)
        entries.append(Entry(name=name, contestants=tuple(seeds)))
    return entries


def _expand(runs: Sequence[str]) -> list[Path]:
    """Resolve patterns; what a pattern finds beside policies is passed over."""
    paths: list[Path] = []
    for run in runs:
        if not glob.has_magic(run) or Path(run).exists():
            paths.append(Path(run))
            continue
        pattern = str(locate(Path(run)))
        found = [Path(name) for name in sorted(glob.glob(pattern)) if _holds_policy(Path(name))]
        if not found:
            raise UsageError(f"{run} matches no run folder and no policy file")
        paths += found
    twice = {path for path in paths if paths.count(path) > 1}
    if twice:
        raise UsageError(f"{min(twice)} is named twice")
    return paths


def _holds_policy(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in ("best.safetensors", "policy.safetensors"))
    return path.suffix == ".safetensors"


def _family(path: Path) -> str:
    return re.sub(r"-seed\d+(?=$|/)", "", str(path))
