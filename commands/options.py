"""Options that several commands share, and checks of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from evaluation.printing import PlainConsole
from evaluation.seeds import MAX_SCORING, SCORING
from storage.files import check_writable

if TYPE_CHECKING:
    from evaluation.protocol import Protocol

CONSOLE = PlainConsole()

RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
RepositoryName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OWNER/NAME")]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How files are read."""

    trust: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Import modules that a file names: `package` of `package:Name-v0`, those of `--import` and of
    `--wrappers`."""


@dataclass(frozen=True, kw_only=True)
class ScoringOptions(ReadingOptions):
    """Which episodes are played, and how."""

    episodes: int = 100
    """Number of episodes."""
    seed: int = SCORING
    """Seed of the first episode; the others follow. Training never uses these seeds."""
    greedy: bool = False
    """Only take the most likely actions; by default, sampled actions are scored as well."""
    num_envs: int = 16
    """Number of environments in parallel."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the policies. auto: the GPU if there is one."""
    json: Path | None = None
    """Also write the scores to this file."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_at_least_one(self, "episodes", "num_envs")
        check_seeds(self.seed, self.episodes)
        if self.json is not None and self.json.is_dir():
            raise ValueError(f"--json {self.json} is a folder; name a file")

    def check_writable(self) -> None:
        """Check that the scores can be written, before anything starts.

        Raises:
            FileError: If they cannot.
        """
        if self.json is not None:
            check_writable(self.json.parent)

    @property
    def protocol(self) -> Protocol:
        """Which episodes are played."""
        from evaluation.protocol import Protocol

        return Protocol(
            episodes=self.episodes, seed=self.seed, num_envs=self.num_envs, device=self.device
        )

    @property
    def modes(self) -> list[str]:
        """How actions are chosen, names in `MODES`."""
        from evaluation.compare import MODES

        return ["greedy"] if self.greedy else list(MODES)


def check_seeds(first: int, count: int = 1) -> None:
    """Check that the seeds of consecutive episodes are seeds of scoring.

    Raises:
        ValueError: If one is not.
    """
    if not SCORING <= first <= MAX_SCORING:
        raise ValueError(f"seed must be between {SCORING} and 2^29 - 1, got {first}")
    if first + count - 1 > MAX_SCORING:
        raise ValueError(
            f"{count:,} episodes from seed {first} on would be beyond 2^29 - 1, the last one for "
            "scoring"
        )


def check_at_least_one(options: Any, *names: str) -> None:
    """Check that some options are at least 1.

    Raises:
        ValueError: If one is not.
    """
    for name in names:
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")


def check_folder(out: Path) -> None:
    """Check that a path can be a folder.

    Raises:
        ValueError: If it is a file.
    """
    if out.is_file():
        raise ValueError(f"--out {out} is a file; name a folder")
