"""`evaluate.py pull`: fetch a policy from the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from commands.options import CONSOLE, ReadingOptions, RepositoryName
from evaluation.printing import print_line


@dataclass(frozen=True, kw_only=True)
class PullOptions(ReadingOptions):
    """Fetch a policy from the Hugging Face hub, to watch, score and compare it."""

    repository: RepositoryName
    """The repository on the hub."""
    out: Path | None = None
    """The folder to create. None: hub/OWNER--NAME."""
    revision: str | None = None
    """A branch, a tag or a commit. None: the newest."""


def run(options: PullOptions) -> None:
    """Fetch a policy from the hub, and print what to do next."""
    from deploy.hub import Repository, one_line
    from evaluation.protocol import named_env, pasteable

    repository = Repository(options.repository)
    out = options.out or repository.folder
    with CONSOLE.status(f"pulling {options.repository}"):
        file = repository.pull(out, revision=options.revision, trust=options.trust)
    about, env = file.about, file.env["env"]
    learned = f"{env}, trained with {about.agent} for {about.env_steps:,} env steps"
    print_line(f"{out}: {one_line(learned)}")
    place = pasteable(out, named_env(file.env, out), file.imports)
    print_line(f"watch it:  python evaluate.py watch {place}")
    print_line(f"score it:  python evaluate.py score {place}")
