"""Simulate how often `compare` tells apart what is alike, by the rule of before and by today's.

    python benchmarks/verdicts.py

Returns are drawn: of an episode, its policy's mean plus a normal deviate; of a policy, its agent's
mean plus another one, whose standard deviation is a share of the episodes'. No games are played.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from agents.checkpoint import write_atomically, write_json
from agents.run import git_revision, versions
from evaluation.report import markdown_table
from evaluation.statistics import Strata
from evaluation.verdicts import ALPHA, FEWEST_SEEDS, correct, weigh

RESULTS = Path(__file__).parent / "results"
RATIOS = (0.0, 0.1, 0.2, 0.3, 0.5)
SEEDS = (3, 4, 5, 6, 8)
EPISODES = 100
MOST = 8  # Entries of a table.
Rule = Callable[[Sequence[Strata]], bool]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """How much is simulated."""

    old: int = 300
    """Simulations of each line by the old rule, which is slow."""
    new: int = 2000
    """Simulations of two agents by the new rule."""
    tables: int = 300
    """Simulations of tables, by either rule."""
    out: Path = RESULTS
    """Where verdicts.md and verdicts.json go."""


def main() -> None:
    """Simulate, and write two files."""
    config, started = tyro.cli(Simulation), time.perf_counter()
    sections = [
        false_verdicts_on_agents(config),
        false_verdicts_on_policies(config),
        false_verdicts_in_tables_of_agents(config),
        false_verdicts_beside_a_fixed_player(config),
        power(config),
    ]
    page = markdown(config, sections, time.perf_counter() - started)
    print(page)
    write_atomically(config.out / "verdicts.md", page.encode())
    content = {
        "command": "python benchmarks/verdicts.py",
        "simulations": {"old": config.old, "new": config.new, "tables": config.tables},
        "episodes": EPISODES,
        "level": ALPHA,
        "sections": [asdict(section) for section in sections],
        "git": git_revision(),
        "versions": versions(),
    }
    write_json(config.out / "verdicts.json", content)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table of shares, in per cent.

    Attributes:
        title: its heading.
        note: what was simulated.
        first: what the lines differ in.
        columns: what the columns differ in.
        lines: the name and the shares of each line.
    """

    title: str
    note: str
    first: str
    columns: list[str]
    lines: dict[str, list[float]]


def false_verdicts_on_agents(config: Simulation) -> Section:
    """Compare two agents that are alike."""
    lines = {}
    for rule, name, num, seeds in (
        *((old_rule, "old", config.old, seeds) for seeds in (3, 5)),
        *((new_rule, "new", config.new, seeds) for seeds in SEEDS),
    ):
        lines[f"{name}, {seeds} seeds"] = [
            share(rule, num, agents([(seeds, ratio, 0.0)] * 2)) for ratio in RATIOS
        ]
    return Section(
        title="Two agents that are alike",
        note=f"Told apart, in % of {config.old:,} (old) and {config.new:,} (new) simulations.",
        first="rule",
        columns=[f"ratio {ratio:g}" for ratio in RATIOS],
        lines=lines,
    )


def false_verdicts_on_policies(config: Simulation) -> Section:
    """Compare several policies that are alike."""
    sizes = range(2, MOST + 1)
    found: dict[str, list[list[bool]]] = {"old": [], "new": []}
    for rng in generators(config.tables):
        policies = [agent(rng, 1, 0.0) for _ in range(MOST)]
        pairs = list(combinations(range(MOST), 2))
        told = {pair: old_told_apart(*(policies[i] for i in pair)) for pair in pairs}
        evidence = {pair: weigh(*(policies[i] for i in pair)) for pair in pairs}
        found["old"].append([any(told[p] for p in pairs if max(p) < size) for size in sizes])
        found["new"].append(
            [min(correct([evidence[p] for p in pairs if max(p) < n])) <= ALPHA for n in sizes]
        )
    return Section(
        title="Tables of single policies that are alike",
        note=f"Tables with any false verdict, in % of {config.tables:,} simulations.",
        first="rule",
        columns=[f"{size} policies" for size in sizes],
        lines={rule: in_per_cent(tables) for rule, tables in found.items()},
    )


def false_verdicts_in_tables_of_agents(config: Simulation) -> Section:
    """Compare eight agents that are alike."""
    lines = {
        f"new, {seeds} seeds": [
            share(new_rule, config.tables, agents([(seeds, ratio, 0.0)] * MOST)) for ratio in RATIOS
        ]
        for seeds in SEEDS
    }
    return Section(
        title=f"Tables of {MOST} agents that are alike",
        note=f"Tables with any false verdict, in % of {config.tables:,} simulations.",
        first="rule",
        columns=[f"ratio {ratio:g}" for ratio in RATIOS],
        lines=lines,
    )


def false_verdicts_beside_a_fixed_player(config: Simulation) -> Section:
    """Compare an agent with a policy that scores what the agent scores on average."""
    lines = {
        f"new, {seeds} seeds": [
            share(new_rule, config.tables, agents([(seeds, ratio, 0.0), (1, 0.0, 0.0)]))
            for ratio in RATIOS
        ]
        for seeds in SEEDS
    }
    return Section(
        title="An agent against one policy that scores what the agent scores on average",
        note=f"Told apart, in % of {config.tables:,} simulations. With fewer than {FEWEST_SEEDS} "
        "seeds the verdict is that each of the agent's policies is better, or each worse. That "
        "then is mostly true of these policies; it is counted all the same.",
        first="rule",
        columns=[f"ratio {ratio:g}" for ratio in RATIOS],
        lines=lines,
    )


def power(config: Simulation) -> Section:
    """Compare two agents of which one is better."""
    differences = (0.3, 0.5, 1.0, 2.0)
    lines = {
        f"new, {seeds} seeds": [
            share(new_rule, config.tables, agents([(seeds, 0.3, 0.0), (seeds, 0.3, d)]))
            for d in differences
        ]
        for seeds in SEEDS
    }
    return Section(
        title="Two agents of which one is better",
        note=f"Told apart, in % of {config.tables:,} simulations, at ratio 0.3. Differences are in "
        "standard deviations of episodes.",
        first="rule",
        columns=[f"difference {difference:g}" for difference in differences],
        lines=lines,
    )


def agents(
    kinds: Sequence[tuple[int, float, float]],
) -> Callable[[np.random.Generator], list[Strata]]:
    """Give what draws agents of so many seeds, such a ratio and such a mean."""
    return lambda rng: [agent(rng, *kind) for kind in kinds]


def agent(rng: np.random.Generator, seeds: int, ratio: float, mean: float = 0.0) -> Strata:
    """Draw an agent's returns: of each training seed, (E,) of its episodes."""
    means = mean + ratio * rng.normal(size=(seeds, 1))
    return list(means + rng.normal(size=(seeds, EPISODES)))


def generators(num: int) -> Iterator[np.random.Generator]:
    """Give each simulation its own random numbers, the same for all rules."""
    return (np.random.default_rng(i) for i in range(num))


def share(rule: Rule, num: int, draw: Callable[[np.random.Generator], list[Strata]]) -> float:
    """Say in how many of a hundred simulations a rule tells any two players apart."""
    return 100 * float(np.mean([rule(draw(rng)) for rng in generators(num)]))


def in_per_cent(tables: list[list[bool]]) -> list[float]:
    """Average over simulations."""
    return [100 * float(share) for share in np.mean(tables, axis=0)]


def new_rule(players: Sequence[Strata]) -> bool:
    """Tell whether any two are told apart by today's rule."""
    evidence = [weigh(one, other) for one, other in combinations(players, 2)]
    return min(correct(evidence)) <= ALPHA


def old_rule(players: Sequence[Strata]) -> bool:
    """Tell whether any two were told apart by the rule of before."""
    return any(old_told_apart(one, other) for one, other in combinations(players, 2))


def old_told_apart(ours: Strata, theirs: Strata) -> bool:
    """Apply the rule of before: only episodes vary, and each pair is judged by itself.

    Two were told apart where the 95 % interval of the probability that an episode of one beats one
    of the other left out one half: percentile bootstrap, 2,000 resamples of the episodes of each
    seed. (Of fewer than 20 episodes a Mann-Whitney test had to agree.)
    """
    rng = np.random.default_rng(0)
    left, right = np.concatenate(ours), np.concatenate(theirs)
    order_left, order_right = np.argsort(left), np.argsort(right)
    left, right = left[order_left], right[order_right]
    our_counts = resampled(ours, rng)[:, order_left]
    their_counts = resampled(theirs, rng)[:, order_right]
    # Draws from a density have no ties.
    below = np.pad(np.cumsum(their_counts, axis=1), ((0, 0), (1, 0)))
    wins = (our_counts * below[:, np.searchsorted(right, left)]).sum(axis=1)
    low, high = np.percentile(wins / (len(left) * len(right)), [2.5, 97.5])
    return not low <= 0.5 <= high


def resampled(strata: Strata, rng: np.random.Generator) -> Any:
    """Say how often each episode is in each of 2,000 resamples, seed by seed."""
    counts = []
    for stratum in strata:
        num = len(stratum)
        drawn = rng.integers(num, size=(2000, num)) + num * np.arange(2000)[:, None]
        counts.append(np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape))
    return np.concatenate(counts, axis=1)


def markdown(config: Simulation, sections: Sequence[Section], seconds: float) -> str:
    """Write the page."""
    lines = [
        "# False verdicts\n",
        "`python benchmarks/verdicts.py`\n",
        "How often `compare` tells apart players that are alike, by simulation. Returns are "
        f"normal; {EPISODES} episodes of each policy. Ratio: the standard deviation between an "
        "agent's training seeds over that between episodes. At most 5 % are meant to be wrong.\n",
        "Old: the 95 % bootstrap interval of the probability of improvement, over episodes only, "
        "leaves out one half; each pair by itself. New: `evaluation/verdicts.py`.\n",
    ]
    for section in sections:
        table = [
            (name, *(f"{value:.1f}" for value in values)) for name, values in section.lines.items()
        ]
        lines += [f"## {section.title}\n", f"{section.note}\n"]
        lines += [*markdown_table((section.first, *section.columns), table, text=(0,)), ""]
    made = f"Simulations: {config.old:,} by the old rule, {config.new:,} of two agents by the new "
    made += f"one, {config.tables:,} of everything else; random numbers are seeded. "
    made += f"{seconds / 60:.0f} minutes, {git_revision()} and the change that adds this page."
    return "\n".join([*lines, made, ""])


if __name__ == "__main__":
    main()
