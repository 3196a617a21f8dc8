"""An HTML page with the replays of several episodes side by side.

It contains the whole page of each replay, which opens on a click. Like those, it is one file that
opens from disk, makes no network requests and runs no scripts but its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from evaluation.protocol import counted
from evaluation.replay.page import filled, inert_json, template_of
from evaluation.replay.recorded import ShownEpisode
from evaluation.replay.video import page_of


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """An episode in a gallery.

    Attributes:
        name: name of the policy, or what is shown of it, such as `after 2,048 env steps`.
        caption: the environment.
        about: further facts about the episode.
        total: its return.
        page: the page of the replay, which contains the video.
    """

    name: str
    caption: str
    about: str
    total: str
    page: str


def exhibit(shown: ShownEpisode, name: str, size: tuple[int, int]) -> Exhibit:
    """Replay an episode for a gallery.

    Args:
        shown: the episode.
        name: name of its policy, or what is shown of it.
        size: (W, H) of the video.

    Raises:
        FileError: If the recording does not fit its environment, or its replay differs.
    """
    episode = shown.episode
    steps = counted(len(episode.rewards), "env step")
    return Exhibit(
        name=name,
        caption=shown.config.env,
        about=f"{steps} · seed {episode.seed}",
        total=f"{episode.episode_return:,.2f}".removesuffix(".00"),
        page=page_of([shown], size),
    )


def gallery(title: str, exhibits: Sequence[Exhibit]) -> str:
    """Return the page as HTML.

    Args:
        title: title of the page.
        exhibits: the episodes.

    Raises:
        ValueError: If there are none.
    """
    if not exhibits:
        raise ValueError("a gallery shows at least one episode")
    template = template_of("gallery.html")
    # The pages of the replays are subject to this page's rules as well as to their own.
    return filled(
        template,
        title,
        {"data": inert_json([asdict(exhibit) for exhibit in exhibits])},
        allowed=(template, template_of("page.html")),
    )
