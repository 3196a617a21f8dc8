"""`evaluate.py watch`: play new episodes and show them live."""

from __future__ import annotations

import itertools
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from commands.commandline import UsageError
from commands.options import ReadingOptions, RunPath, check_at_least_one, check_seeds
from evaluation.printing import print_line
from evaluation.seeds import MAX_SCORING
from processes.streams import lost_output


@dataclass(frozen=True, kw_only=True)
class WatchOptions(ReadingOptions):
    """Play new episodes with a policy and show them, in a window or in the terminal."""

    run: RunPath
    """A run folder or a policy file."""
    against: Path | None = None
    """Another run or policy, shown beside this one on the same seeds."""
    episodes: int | None = None
    """Number of episodes. None: until Ctrl-C."""
    seed: int | None = None
    """Seed of the first episode. None: a new one each time."""
    greedy: bool = False
    """Take the most likely actions instead of sampling them."""
    speed: float = 1.0
    """1 is the environment's own speed, 2 twice that."""
    terminal: bool = False
    """Show episodes in the terminal even if there is a display."""
    overlay: bool = True
    """Show return, action, probabilities and values: on the pictures, in a terminal as text."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.episodes is not None:
            check_at_least_one(self, "episodes")
        if self.seed is not None:
            check_seeds(self.seed)
        if not self.speed > 0:
            raise ValueError(f"speed must be greater than 0, got {self.speed}")


def run(options: WatchOptions) -> None:
    """Play episode after episode, and show each at the game's speed."""
    from evaluation.entries import locate
    from evaluation.protocol import Protocol
    from evaluation.replay.live import opponent, play_new, show_live, window
    from evaluation.replay.terminal import is_terminal, terminal
    from storage.run_folder import find_player

    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    windowed = not options.terminal and any(name in os.environ for name in displays)
    if not windowed and not is_terminal():
        raise UsageError(
            "watch shows episodes in a window or a terminal, and there is neither; write a video: "
            f"python evaluate.py replay {shlex.quote(str(options.run))}"
        )
    seed = int(time.time()) % MAX_SCORING if options.seed is None else options.seed
    file, _ = find_player(locate(options.run), trust=options.trust)
    numbers = itertools.count() if options.episodes is None else range(options.episodes)
    names = [str(path) for path in (options.run, options.against) if path]
    overlay = options.overlay and windowed
    with window() if windowed else terminal(names, text=options.overlay) as show:
        for number in numbers:
            protocol = Protocol(episodes=1, seed=(seed + number) % MAX_SCORING, num_envs=1)
            shown = play_new(
                file, options.run, protocol, greedy=options.greedy, trust=options.trust
            )
            if options.against:
                shown.append(opponent(options.against, shown[0], options.trust))
            if not show_live(shown, show, speed=options.speed, overlay=overlay):
                return
            for s in shown:
                episode_return = f"{s.episode.episode_return:,.2f}"
                print_line(f"{s.name}: episode with seed {s.episode.seed}: return {episode_return}")
            if lost_output():
                return
