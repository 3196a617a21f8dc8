"""Playing the same episodes with several policies, and testing which of them are better.

Axes: E episodes, S training seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from agents import Player
from envs import EnvConfig, SharedVectorEnv
from envs.doom.maps import MapConfig
from envs.registry import frames_per_env_step
from evaluation.entries import Contestant, Entry
from evaluation.errors import EvaluationError
from evaluation.playing import score_episodes
from evaluation.protocol import Protocol, baselines, check_fits, is_bounded, play, vector_env
from evaluation.statistics import Interval, Score, Strata, probability_of_improvement
from evaluation.verdicts import ALPHA, Evidence, correct, weigh
from storage.onnx_file import PlayableFile
from storage.recording import Episode

MODES = {"sampled": False, "greedy": True}
"""How actions are chosen, by name: whether the most likely one is taken instead of sampling."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one entry in one mode.

    Attributes:
        entry: name of the entry.
        mode: sampled or greedy; empty for untrained baselines.
        contestants: the entry's policies; empty for untrained baselines.
        returns: for each of S training seeds, (E,) native returns in the order of episode seeds.
        score: statistics of the returns.
        env_steps_per_s: speed of the episodes, environments and network together.
    """

    entry: str
    mode: str
    contestants: tuple[Contestant, ...]
    returns: Strata
    score: Score
    env_steps_per_s: float

    @property
    def is_agent(self) -> bool:
        """Whether it is about an agent with several training seeds, and not about one policy."""
        return len(self.returns) > 1

    @property
    def name(self) -> str:
        """The name in tables."""
        return f"{self.entry} ({self.mode})" if self.mode else self.entry

    @property
    def env_steps(self) -> float:
        """Env steps of its training, averaged over seeds; 0 for untrained baselines."""
        return _mean([contestant.file.about.env_steps for contestant in self.contestants])

    @property
    def seconds(self) -> float:
        """Seconds of its training, averaged over seeds; 0 for untrained baselines."""
        return _mean([contestant.file.about.seconds for contestant in self.contestants])


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two results, and the test of which one is better.

    Attributes:
        better: the better one; if the difference is not significant, the one with the higher mean.
        worse: the other one.
        probability: the probability that an episode of `better` scores higher than one of `worse`.
        evidence: the test of the pair, from the point of view of `better`.
        p_corrected: the p-value of the test, corrected for all pairs of the table.
    """

    better: Result
    worse: Result
    probability: Interval
    evidence: Evidence
    p_corrected: float

    @property
    def is_significant(self) -> bool:
        """Whether `better` is significantly better."""
        return self.p_corrected <= ALPHA


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Results in one environment, best first: by rank, then by mean.

    Attributes:
        config: the environment.
        protocol: the episodes and rules of the comparison.
        results: one for each entry and mode.
        ranks: rank of each result: 1 plus the number of results that are significantly better,
            corrected for all pairs. Results may share a rank.
        pairs: every pair of results.
    """

    config: EnvConfig
    protocol: Protocol
    results: tuple[Result, ...]
    ranks: tuple[int, ...]
    pairs: tuple[Pair, ...]

    @property
    def frame_skip(self) -> int:
        """Number of frames in an env step."""
        return frames_per_env_step(self.config)

    @property
    def neighbours(self) -> list[Pair]:
        """The pairs of each result and the next one."""
        found = {frozenset((pair.better.name, pair.worse.name)): pair for pair in self.pairs}
        return [found[frozenset((a.name, b.name))] for a, b in pairwise(self.results)]


def by_env(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Group entries by environment, because only entries of one environment can be compared.

    Raises:
        EvaluationError: If entries of one environment have different frame skips.
    """
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        config = entry.config
        # With other arguments, or another limit where it has none, it is another environment.
        limit = None if is_bounded(config) else config.time_limit
        # How many maps a training has does not matter: no score is of those maps.
        options = config.map
        if isinstance(options, MapConfig):
            options = replace(options, num_maps=None, first_map=0)
        key = (config.env, config.env_kwargs, limit, options)
        groups.setdefault(key, []).append(entry)
    for (env, *_), group in groups.items():
        skips = sorted({frames_per_env_step(entry.config) for entry in group})
        if len(skips) > 1:
            raise EvaluationError(
                f"runs in {env} have different frame skips ({', '.join(map(str, skips))}) and "
                "cannot be compared; name runs with the same frame_skip"
            )
    return list(groups.values())


def compare(
    entries: Sequence[Entry],
    protocol: Protocol,
    *,
    modes: Sequence[str],
    progress: Callable[[str], Any],
) -> Comparison:
    """Play the same episodes with all entries of one environment and with untrained baselines.

    Args:
        entries: at least one.
        protocol: which episodes are played.
        modes: names in `MODES`.
        progress: called with the name of each player before it plays.

    Raises:
        FileError: If a policy does not fit its environment.
    """
    results = [
        result
        for entry in entries
        for result in _play_entry(entry, protocol, modes=modes, progress=progress)
    ]
    config = entries[0].config
    with vector_env(config, protocol.num_envs, protocol.episodes) as envs:
        start_engines(envs, protocol)
        for name, player in baselines(envs).items():
            progress(name)
            played = timed(player, envs, protocol, greedy=False)
            results.append(_result(name, "", (), [played]))
    return rank(config, protocol, results)


def rank(config: EnvConfig, protocol: Protocol, results: Sequence[Result]) -> Comparison:
    """Test all pairs of results, and sort the results by rank, then by mean."""
    by_mean = sorted(results, key=lambda result: -result.score.mean)
    both = list(combinations(by_mean, 2))
    evidence = [weigh(one.returns, other.returns) for one, other in both]
    pairs = [
        _pair(one, other, of_pair, p)
        for (one, other), of_pair, p in zip(both, evidence, correct(evidence), strict=True)
    ]
    significant = [pair for pair in pairs if pair.is_significant]

    def rank_of(result: Result) -> int:
        return 1 + sum(pair.worse is result for pair in significant)

    # A few very high returns make a high mean, although most episodes may be worse than another
    # player's: the mean alone is not the order.
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


_Played = tuple[list[Episode], float]
"""Episodes, and the seconds that they took."""


def _play_entry(
    entry: Entry, protocol: Protocol, *, modes: Sequence[str], progress: Callable[[str], Any]
) -> Iterator[Result]:
    played: dict[str, list[_Played]] = {mode: [] for mode in modes}
    for contestant in entry.contestants:
        with vector_env(contestant.config, protocol.num_envs, protocol.episodes) as envs:
            check_fits(contestant.file, envs, contestant.path)
            start_engines(envs, protocol)
            for mode in modes:
                progress(f"{contestant.path} ({mode})")
                played[mode].append(timed(contestant.file, envs, protocol, greedy=MODES[mode]))
    for mode in modes:
        yield _result(entry.name, mode, entry.contestants, played[mode])


def start_engines(envs: SharedVectorEnv, protocol: Protocol) -> None:
    """Start the engines, so that the speed of the first player does not include it."""
    envs.reset(seed=protocol.seed)


def timed(
    player: Player | PlayableFile, envs: SharedVectorEnv, protocol: Protocol, *, greedy: bool
) -> _Played:
    """Play the protocol's episodes; return them, and the seconds that they took."""
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
