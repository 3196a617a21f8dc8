"""Recorded episodes of a user's runs as players, whose episodes are simulated again.

A run's evaluations show how well it played at which time of its training: those in the first half
are of a half-trained player, those at the end, and scored episodes, of a trained one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from envs import EnvConfig
from envs.fingerprint import refuse_other_files
from evaluation.entries import locate
from evaluation.replay.recorded import ShownEpisode, check_reward, read
from storage.files import FileError
from storage.run_folder import RunFolder
from training.supervised.players import Played, shown

_EVALUATION = re.compile(r"evaluation-(\d+)-\d+")
_HALF = 0.5  # Of a training's env steps; later evaluations are of neither kind, but the last.


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """Recorded episodes of one scenario.

    Attributes:
        how: how the scenario was played; sizes of observations do not matter.
        episodes: the episodes by kind of player: `half-trained`, `trained`.
    """

    how: EnvConfig
    episodes: Mapping[str, Sequence[ShownEpisode]] = field(default_factory=dict)

    def play(self, kind: str, part: int, shares: Sequence[float]) -> Iterator[Played]:
        """Yield the episodes of a kind of player and a part, whose seeds no other part has.

        Args:
            kind: of the player.
            part: number of the part.
            shares: of the parts.

        Raises:
            FileError: If there are none, or a file of the scenario has changed.
        """
        seeds = sorted({e.episode.seed for each in self.episodes.values() for e in each})
        order = np.random.default_rng(0).permutation(len(seeds)) / len(seeds)
        part_of = dict(
            zip(seeds, np.searchsorted(np.cumsum(shares[:-1]), order, "right"), strict=True)
        )
        found = [e for e in self.episodes.get(kind, ()) if part_of[e.episode.seed] == part]
        if not found:
            raise FileError(
                f"the runs of {self.how.env} have too few recorded episodes of a {kind} player "
                f"({len(self.episodes.get(kind, ()))}); record more with --eval-episodes"
            )
        for each in found:
            refuse_other_files(each.config.env, each.recording.game)
            yield Played(
                seed=each.episode.seed,
                actions=iter(each.episode.actions),
                check=partial(check_reward, each.recording, each.config),
            )


def recordings_of(runs: Sequence[Path], scenarios: Sequence[str]) -> dict[str, Recordings]:
    """Return the recorded episodes of runs by scenario.

    Args:
        runs: the run folders.
        scenarios: each must have a run.

    Raises:
        FileError: If a recording is damaged, a scenario has no run, or its runs play it in
            different ways.
    """
    found: dict[str, dict[str, list[ShownEpisode]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for kind, episode in _read(run):
            found[episode.config.env][kind].append(episode)
    recordings = {}
    for name in scenarios:
        played = [_played(e.config) for each in found[name].values() for e in each]
        if not played:
            raise FileError(f"none of --runs has recorded episodes of {name}")
        if any(how != played[0] for how in played):
            raise FileError(
                f"the runs of {name} do not play it in the same way; name those with the same "
                "--frame-skip, --actions, --skill and --time-limit"
            )
        recordings[name] = Recordings(how=played[0], episodes=found[name])
    return recordings


def _played(config: EnvConfig) -> EnvConfig:
    """Return how an environment is played, whatever is observed."""
    plain = {"observation": "palette", "height": 60, "width": 80, "frame_stack": 1}
    return replace(shown(config, plain).config, files=())


def _read(run: Path) -> Iterator[tuple[str, ShownEpisode]]:
    """Yield the recorded episodes of a run whose kind of player is known, and that kind."""
    folder = RunFolder(locate(run)).episodes
    times: dict[Path, int] = {}
    for file in folder.glob("evaluation-*.npz"):
        if match := _EVALUATION.fullmatch(file.stem):
            times[file] = int(match[1])
    scored = sorted(folder.glob("score-*.npz"))
    if not times and not scored:
        raise FileError(f"{run} has no recorded episodes in {folder}")
    last = max(times.values(), default=0)
    kinds: dict[Path, str] = {file: "half-trained" for file in times if times[file] <= _HALF * last}
    kinds |= {file: "trained" for file in times if times[file] == last}
    kinds |= dict.fromkeys(scored, "trained")
    for file, kind in sorted(kinds.items()):
        yield kind, read(file, name=str(run), trust=False)
