"""Write an animated contact sheet of all policies of the zoo as they play: `make demo`.

    python -m docs.demo                    # images/demo.gif
    python -m docs.demo --each             # also zoo/NAME/replay.gif of each policy
    python -m docs.demo --out demo.mp4     # a video

Every policy plays its first held-out episodes, and every picture is simulated again from the seed
and the actions.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from envs.video import small_gif, write_mp4
from evaluation.entries import expand, holds_policy, locate
from evaluation.printing import print_line
from evaluation.replay.sheet import FPS, film, sheet, write_film
from storage.files import write_atomically
from storage.run_folder import policy_path

IMAGES = Path(__file__).resolve().parent / "images"
MAX_BYTES = 3_000_000


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What is shown."""

    policies: tyro.conf.Positional[tuple[str, ...]] = ("zoo/*",)
    """Run folders or policy files, or patterns for them in quotes."""
    out: Path = IMAGES / "demo.gif"
    """The file to write: .gif or .mp4."""
    size: tuple[int, int] = (160, 120)
    """Width and height of each picture in pixels."""
    seconds: float = 7.0
    """Length."""
    episodes: int = 5
    """Number of held-out episodes to choose from, at seeds 0, 1, ..."""
    each: bool = False
    """Also write replay.gif beside each policy."""


def main(demo: Demo) -> None:
    """Play with every policy, and write the contact sheet."""
    num = round(demo.seconds * FPS)
    paths = expand(demo.policies, holds_policy)
    films = []
    for path in paths:
        print_line(f"playing: {path}", sys.stderr)
        films.append(film(path, demo.size, num, episodes=demo.episodes))
    frames = [sheet([of_policy[number] for of_policy in films]) for number in range(num)]
    if demo.out.suffix == ".gif":
        write_atomically(demo.out, small_gif(frames, FPS, MAX_BYTES))
    else:
        even = [frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames]
        write_mp4(demo.out, even, FPS)
    size = demo.out.stat().st_size
    if demo.each:
        for path, of_policy in zip(paths, films, strict=True):
            write_film(policy_path(locate(path)).with_name("replay.gif"), of_policy)
    print_line(f"{demo.out}: {len(films)} policies, {num} pictures, {size:,} bytes")


if __name__ == "__main__":
    main(tyro.cli(Demo, description=__doc__))
