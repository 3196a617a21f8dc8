"""`evaluate.py gallery`: one page with replays of several policies, or of one agent over time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from commands.options import CONSOLE, ReadingOptions
from evaluation.printing import print_line


@dataclass(frozen=True, kw_only=True)
class GalleryOptions(ReadingOptions):
    """Write one page with replays: of several policies, or of one run early, midway and late.

    The page is a single file, whose videos play side by side; each opens as a replay page.
    """

    entries: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="ENTRY [ENTRY ...]", help_behavior_hint="(required)"),
    ]
    """Run folders, policy files, patterns for them in quotes, or zoo. One run alone: how it
    learned."""
    out: Path = Path("gallery.html")
    """The .html file to write."""
    episode: str | None = None
    """Which episode of each entry: highlight (the default), best, worst, last or a seed."""
    size: str = "320x240"
    """Width and height of the videos in pixels, both even."""

    def __post_init__(self) -> None:
        """Check the names."""
        if not self.entries:
            raise ValueError("name at least one run or policy")
        if self.out.suffix != ".html" or self.out.is_dir():
            raise ValueError(f"--out {self.out}: a page is an .html file")


def run(options: GalleryOptions) -> None:
    """Write the page."""
    from commands.replay import parse_size
    from evaluation.entries import expand, holds_policy, is_run, locate
    from evaluation.protocol import counted
    from evaluation.replay.chosen import chosen_episodes, story_of
    from evaluation.replay.gallery import exhibit, gallery
    from storage.files import check_writable, write_atomically
    from storage.run_folder import RunFolder

    size, wanted = parse_size(options.size), options.episode or "highlight"
    check_writable(options.out.parent)
    named = ["zoo/*" if entry.rstrip("/") == "zoo" else entry for entry in options.entries]
    paths = expand(named, holds_policy)
    is_run_alone = len(paths) == 1 and is_run(paths[0], RunFolder(locate(paths[0])))
    is_story = is_run_alone and options.episode is None
    exhibits = []
    for path in paths:
        with CONSOLE.status(f"replaying {path}"):
            if is_story:
                exhibits += [
                    exhibit(shown, caption, size)
                    for caption, shown in story_of(path, trust=options.trust)
                ]
                continue
            (shown, *_), _ = chosen_episodes(path, wanted, 1, trust=options.trust)
            exhibits.append(exhibit(shown, str(path), size))
    policies = "1 policy" if len(exhibits) == 1 else f"{len(exhibits)} policies"
    title = f"{paths[0]}: how it learned" if is_story else policies
    content = gallery(title, exhibits).encode()
    write_atomically(options.out, content)
    num = counted(len(exhibits), "episode")
    print_line(f"{options.out}: {num}, {len(content) / 2**20:,.1f} MiB; open it in a browser")
