"""Letting several policies play the same episodes, and telling which are better.

Axes: E episodes, S training seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from agents import Player
from agents.checkpoint import PolicyFile
from agents.commandline import UsageError
from envs import EnvConfig, SharedVectorEnv
from envs.registry import frames_per_env_step
from evaluation.entries import Contestant, Entry
from evaluation.play import score_episodes
from evaluation.protocol import Protocol, baselines, check_fits, play, vector_env
from evaluation.statistics import Interval, Score, Strata, probability_of_improvement
from evaluation.verdicts import ALPHA, Evidence, correct, weigh

MODES = {"sampled": False, "greedy": True}
"""How actions are chosen: whether they are the most likely ones."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How one entry played.

    Attributes:
        entry: its name.
        mode: sampled or greedy; empty for players that learned nothing.
        contestants: its policies; none for players that learned nothing.
        returns: of each of S training seeds, (E,) native returns in the order of episode seeds.
        score: what they say.
        env_steps_per_s: at which it played, games and network together.
    """

    entry: str
    mode: str
    contestants: tuple[Contestant, ...]
    returns: Strata
    score: Score
    env_steps_per_s: float

    @property
    def is_agent(self) -> bool:
        """Whether it stands for an agent, trained several times, and not for one policy."""
        return len(self.returns) > 1

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"{self.entry} ({self.mode})" if self.mode else self.entry

    @property
    def env_steps(self) -> float:
        """For how long it was trained, in env steps, on average over seeds; 0 if it was not."""
        return _mean([contestant.file.about.env_steps for contestant in self.contestants])

    @property
    def seconds(self) -> float:
        """For how long it was trained, on average over seeds; 0 if it was not."""
        return _mean([contestant.file.about.seconds for contestant in self.contestants])


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two results, and what is known of which is better.

    Attributes:
        better: the better one; where they are not told apart, the one with the higher mean.
        worse: the other.
        probability: how likely one of the better's episodes beats one of the other's.
        evidence: which of them is better, and by how much.
        p_corrected: the evidence's p-value, corrected for all pairs of the table.
    """

    better: Result
    worse: Result
    probability: Interval
    evidence: Evidence
    p_corrected: float

    @property
    def is_told_apart(self) -> bool:
        """Whether it is beyond doubt which is better."""
        return self.p_corrected <= ALPHA


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Results in one world, best first: by rank, then by mean.

    Attributes:
        config: the world.
        protocol: by which they came about.
        results: one for each entry and mode.
        ranks: of the results: 1 and one more for each that is better beyond doubt, as corrected
            for all pairs, so that equals share a rank.
        pairs: each result and each other one.
    """

    config: EnvConfig
    protocol: Protocol
    results: tuple[Result, ...]
    ranks: tuple[int, ...]
    pairs: tuple[Pair, ...]

    @property
    def frame_skip(self) -> int:
        """Frames an env step lasts."""
        return frames_per_env_step(self.config)

    @property
    def neighbours(self) -> list[Pair]:
        """Each result and the one that follows it."""
        found = {frozenset((pair.better.name, pair.worse.name)): pair for pair in self.pairs}
        return [found[frozenset((a.name, b.name))] for a, b in pairwise(self.results)]


def by_world(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Put entries together that can be compared.

    Raises:
        UsageError: If two in one world act every so many frames, but not the same number of them.
    """
    worlds: dict[str, list[Entry]] = {}
    for entry in entries:
        worlds.setdefault(entry.config.env, []).append(entry)
    for env, inside in worlds.items():
        skips = sorted({frames_per_env_step(entry.config) for entry in inside})
        if len(skips) > 1:
            raise UsageError(f"runs of one frame_skip can be compared, those of {env} have {skips}")
    return list(worlds.values())


def compare(
    entries: Sequence[Entry],
    protocol: Protocol,
    *,
    modes: Sequence[str],
    say: Callable[[str], Any],
) -> Comparison:
    """Let all entries of one world, and players that learned nothing, play the same episodes.

    Args:
        entries: at least one.
        protocol: which episodes.
        modes: of `MODES`.
        say: is told who plays.

    Raises:
        FileError: If a policy does not fit its world.
    """
    results = [
        result for entry in entries for result in _play_entry(entry, protocol, modes=modes, say=say)
    ]
    config = entries[0].config
    with vector_env(config, protocol.num_envs, protocol.episodes) as envs:
        for name, player in baselines(envs).items():
            say(name)
            played = _timed(player, envs, protocol, greedy=False)
            results.append(_result(name, "", (), [played]))
    return rank(config, protocol, results)


def rank(config: EnvConfig, protocol: Protocol, results: Sequence[Result]) -> Comparison:
    """Put results into order."""
    by_mean = sorted(results, key=lambda result: -result.score.mean)
    both = list(combinations(by_mean, 2))
    evidence = [weigh(one.returns, other.returns) for one, other in both]
    pairs = [
        _pair(one, other, of_pair, p)
        for (one, other), of_pair, p in zip(both, evidence, correct(evidence), strict=True)
    ]
    told_apart = [pair for pair in pairs if pair.is_told_apart]

    def rank_of(result: Result) -> int:
        return 1 + sum(pair.worse is result for pair in told_apart)

    # A few high returns make a high mean, and yet most episodes may be worse than another's.
    by_rank = sorted(by_mean, key=rank_of)
    return Comparison(
        config=config,
        protocol=protocol,
        results=tuple(by_rank),
        ranks=tuple(map(rank_of, by_rank)),
        pairs=tuple(pairs),
    )


def _pair(one: Result, other: Result, evidence: Evidence, p_corrected: float) -> Pair:
    if p_corrected <= ALPHA and not evidence.is_ours_ahead:
        one, other, evidence = other, one, evidence.reversed()
    return Pair(
        better=one,
        worse=other,
        probability=probability_of_improvement(one.returns, other.returns),
        evidence=evidence,
        p_corrected=p_corrected,
    )


_Played = tuple[list[Any], float]  # episodes, seconds


def _play_entry(
    entry: Entry, protocol: Protocol, *, modes: Sequence[str], say: Callable[[str], Any]
) -> Iterator[Result]:
    played: dict[str, list[_Played]] = {mode: [] for mode in modes}
    for contestant in entry.contestants:
        with vector_env(contestant.config, protocol.num_envs, protocol.episodes) as envs:
            check_fits(contestant.file, envs, contestant.path)
            for mode in modes:
                say(f"{contestant.path} ({mode})")
                played[mode].append(_timed(contestant.file, envs, protocol, greedy=MODES[mode]))
    for mode in modes:
        yield _result(entry.name, mode, entry.contestants, played[mode])


def _timed(
    player: Player | PolicyFile, envs: SharedVectorEnv, protocol: Protocol, *, greedy: bool
) -> _Played:
    started = time.perf_counter()
    return play(player, envs, protocol, greedy=greedy), time.perf_counter() - started


def _result(
    entry: str, mode: str, contestants: tuple[Contestant, ...], played: Sequence[_Played]
) -> Result:
    env_steps = sum(len(e.rewards) for episodes, _ in played for e in episodes)
    return Result(
        entry=entry,
        mode=mode,
        contestants=contestants,
        returns=[np.array([e.episode_return for e in episodes]) for episodes, _ in played],
        score=score_episodes(*(episodes for episodes, _ in played)),
        env_steps_per_s=env_steps / sum(seconds for _, seconds in played),
    )


def _mean(numbers: Sequence[float]) -> float:
    return float(np.mean(numbers)) if numbers else 0.0
