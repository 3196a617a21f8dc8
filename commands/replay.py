"""`evaluate.py replay`: show recorded episodes again, as a video or as a page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from commands.commandline import UsageError
from commands.options import CONSOLE, ReadingOptions, RunPath, check_at_least_one
from storage.files import check_writable

if TYPE_CHECKING:
    from evaluation.replay.recorded import ShownEpisode

_MOST_SECONDS = 86_400
_STANDSTILL_S = 0.5  # How long the last picture of an episode is shown.


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(ReadingOptions):
    """Replay a recorded episode, frame by frame, as a video or as a page."""

    run: RunPath
    """A run folder or a policy file; for a file, a new episode is played."""
    episode: str = "highlight"
    """highlight (the best of at least 10 env steps, else the longest), best, worst, last, a seed
    that was scored, or a name in episodes/ such as training-first."""
    html: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write a page that shows the video beside the policy's actions and values, step by step."""
    explain: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show over the video of the page where the policy looks; `explain` also checks the methods."""
    against: Path | None = None
    """Another run or policy, shown beside this one on the same seed."""
    count: int = 1
    """Number of episodes to show, one after another: the chosen one and those next to it."""
    seconds: float | None = None
    """Show only this much of each episode."""
    out: Path | None = None
    """The file to write: .mp4, .gif or .html. None: replay.mp4 or replay.html in the run folder, or
    in runs/zoo/NAME."""
    size: str = "640x480"
    """Width and height in pixels, both even."""
    overlay: bool = True
    """Draw return, action, probabilities and values on the pictures of a video."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_at_least_one(self, "count")
        suffixes = (".html",) if self.html else (".mp4", ".gif")
        if self.out is not None and self.out.suffix not in suffixes:
            kind = "a page is an .html file" if self.html else "a video is an .mp4 or .gif file"
            raise ValueError(f"--out {self.out}: {kind}")
        if self.seconds is not None and not 0 < self.seconds <= _MOST_SECONDS:
            raise ValueError(
                f"seconds must be greater than 0 and at most {_MOST_SECONDS}, got {self.seconds}"
            )
        if self.explain and not self.html:
            raise ValueError("--explain shows maps on a page: add --html")
        if self.html and (self.count > 1 or self.seconds):
            raise ValueError("a page shows one whole episode: leave out --count and --seconds")


def run(options: ReplayOptions) -> None:
    """Write a video of recorded episodes, or a page about one."""
    from envs.playback import playback_fps
    from envs.video import write_gif, write_mp4
    from evaluation.entries import output_folder
    from evaluation.replay.chosen import chosen_episodes
    from evaluation.replay.live import opponent
    from evaluation.replay.video import page_of
    from storage.files import replacing, write_atomically
    from storage.run_folder import PAGE, VIDEO

    size = parse_size(options.size)
    if options.out is not None:
        check_writable(options.out.parent)
    shown, folder = chosen_episodes(
        options.run, options.episode, options.count, trust=options.trust
    )
    if options.against:
        shown += [opponent(options.against, episode, options.trust) for episode in shown]
    name = PAGE if options.html else VIDEO
    out = options.out or output_folder(options.run, folder) / name
    check_writable(out.parent)
    fps = playback_fps(shown[0].config)
    with CONSOLE.status(f"writing {out}"):
        if options.html:
            explained = _explained(options, shown[0], out.parent) if options.explain else None
            write_atomically(out, page_of(shown, size, explained=explained).encode())
        else:
            write = write_gif if out.suffix == ".gif" else write_mp4
            with replacing(out) as temporary:
                write(temporary, frames(options, shown, size, fps), fps)
    returns = ", ".join(f"{s.name} {s.episode.episode_return:,.2f}" for s in shown)
    CONSOLE.print(f"{out}: return of {returns}", highlight=False)


def _explained(options: ReplayOptions, shown: ShownEpisode, folder: Path) -> dict[str, Any]:
    """Return where the policy looks in an episode, for a page."""
    from evaluation.entries import locate
    from evaluation.explain.explain import Explainer, Plan
    from evaluation.explain.report import page_data
    from evaluation.protocol import native
    from storage.run_folder import find_policy

    file, _ = find_policy(locate(options.run), trust=options.trust)
    config = native(file, options.run, trust=options.trust)
    explainer = Explainer(file, config, Plan(), folder / "explain" / "parts")
    return page_data(explainer.maps(shown), {})


def frames(
    options: ReplayOptions, shown: Sequence[ShownEpisode], size: tuple[int, int], fps: float
) -> Iterator[Any]:
    """Yield the pictures of episodes one after another, or of each beside its opponent's."""
    from evaluation.replay.video import pictures, side_by_side

    half = len(shown) // 2 if options.against else len(shown)
    for number in range(half):
        videos = [pictures(s, size, overlay=options.overlay) for s in shown[number::half]]
        longest = None if options.seconds is None else max(1, math.ceil(options.seconds * fps))
        for image in islice(side_by_side(videos), longest):
            yield image
        yield from [image] * round(fps * _STANDSTILL_S)


def parse_size(text: str) -> tuple[int, int]:
    """Parse a size such as `640x480`.

    Raises:
        UsageError: If it is something else, or odd, which video cannot be.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    width, height = (int(n) for n in match.groups()) if match else (0, 0)
    if not (16 <= width <= 4096 and 16 <= height <= 4096) or width % 2 or height % 2:
        raise UsageError(f"--size {text}: give an even width and height, as in 640x480")
    return width, height
