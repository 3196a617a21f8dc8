"""Simulate how often `compare` finds differences that do not exist, by its old and its new rule.

    python -m benchmarks.verdicts

Returns are simulated: an episode's return is the mean of its policy plus a standard normal number;
the mean of a policy is that of its agent plus a normal number whose standard deviation is given as
a ratio to that of episodes. No episodes are played.
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

from evaluation.report.markdown import markdown_table
from evaluation.statistics import Strata
from evaluation.verdicts import ALPHA, FEWEST_SEEDS, correct, weigh
from storage.files import write_atomically, write_json
from storage.provenance import git_revision, versions

RESULTS = Path(__file__).parent / "results"
RATIOS = (0.0, 0.1, 0.2, 0.3, 0.5)
SEEDS = (3, 4, 5, 6, 8)
EPISODES = 100
LARGEST_TABLE = 8  # entries
Rule = Callable[[Sequence[Strata]], bool]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Numbers of simulations."""

    old: int = 300
    """Simulations for each row of the old rule, which is slow."""
    new: int = 2000
    """Simulations of two agents with the new rule."""
    tables: int = 300
    """Simulations of tables, with either rule."""
    out: Path = RESULTS
    """Folder for verdicts.md and verdicts.json."""


def main() -> None:
    """Simulate, and write the results."""
    config, started = tyro.cli(Simulation, description=__doc__), time.perf_counter()
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
        "command": "python -m benchmarks.verdicts",
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
    """A table of percentages.

    Attributes:
        title: its heading.
        note: what was simulated.
        first: heading of the first column.
        columns: headings of the other columns.
        lines: percentages of each row by its name.
    """

    title: str
    note: str
    first: str
    columns: list[str]
    lines: dict[str, list[float]]


def false_verdicts_on_agents(config: Simulation) -> Section:
    """Compare two agents that are equal."""
    lines = {}
    rules = (("old", old_rule, config.old, (3, 5)), ("new", new_rule, config.new, SEEDS))
    for name, rule, num, numbers_of_seeds in rules:
        for seeds in numbers_of_seeds:
            lines[f"{name}, {seeds} seeds"] = [
                share(rule, num, agents([(seeds, ratio, 0.0)] * 2)) for ratio in RATIOS
            ]
    return Section(
        title="Two equal agents",
        note=f"Verdicts that one is better, in % of {config.old:,} (old) and {config.new:,} (new) "
        "simulations.",
        first="rule",
        columns=[f"ratio {ratio:g}" for ratio in RATIOS],
        lines=lines,
    )


def false_verdicts_on_policies(config: Simulation) -> Section:
    """Compare several policies that are equal."""
    sizes = range(2, LARGEST_TABLE + 1)
    found: dict[str, list[list[bool]]] = {"old": [], "new": []}
    for rng in generators(config.tables):
        policies = [agent(rng, 1, 0.0) for _ in range(LARGEST_TABLE)]
        pairs = list(combinations(range(LARGEST_TABLE), 2))
        differs = {pair: old_verdict(*(policies[i] for i in pair)) for pair in pairs}
        evidence = {pair: weigh(*(policies[i] for i in pair)) for pair in pairs}
        found["old"].append([any(differs[p] for p in pairs if max(p) < size) for size in sizes])
        found["new"].append(
            [min(correct([evidence[p] for p in pairs if max(p) < n])) <= ALPHA for n in sizes]
        )
    return Section(
        title="Tables of equal policies",
        note=f"Tables with any false verdict, in % of {config.tables:,} simulations.",
        first="rule",
        columns=[f"{size} policies" for size in sizes],
        lines={rule: in_per_cent(tables) for rule, tables in found.items()},
    )


def false_verdicts_in_tables_of_agents(config: Simulation) -> Section:
    """Compare eight agents that are equal."""
    lines = {
        f"new, {seeds} seeds": [
            share(new_rule, config.tables, agents([(seeds, ratio, 0.0)] * LARGEST_TABLE))
            for ratio in RATIOS
        ]
        for seeds in SEEDS
    }
    return Section(
        title=f"Tables of {LARGEST_TABLE} equal agents",
        note=f"Tables with any false verdict, in % of {config.tables:,} simulations.",
        first="rule",
        columns=[f"ratio {ratio:g}" for ratio in RATIOS],
        lines=lines,
    )


def false_verdicts_beside_a_fixed_player(config: Simulation) -> Section:
    """Compare an agent with a single policy whose mean return is the agent's average."""
    lines = {
        f"new, {seeds} seeds": [
            share(new_rule, config.tables, agents([(seeds, ratio, 0.0), (1, 0.0, 0.0)]))
            for ratio in RATIOS
        ]
        for seeds in SEEDS
    }
    return Section(
        title="An agent against one policy whose mean return is the agent's average",
        note=f"Verdicts that one is better, in % of {config.tables:,} simulations. With fewer than "
        f"{FEWEST_SEEDS} seeds, the verdict is that each of the agent's policies is better, or "
        "that each is worse. This is then mostly true of these policies; it is counted "
        "nevertheless.",
        first="rule",
        columns=[f"ratio {ratio:g}" for ratio in RATIOS],
        lines=lines,
    )


def power(config: Simulation) -> Section:
    """Compare two agents, one of which is better."""
    differences = (0.3, 0.5, 1.0, 2.0)
    lines = {
        f"new, {seeds} seeds": [
            share(new_rule, config.tables, agents([(seeds, 0.3, 0.0), (seeds, 0.3, d)]))
            for d in differences
        ]
        for seeds in SEEDS
    }
    return Section(
        title="Two agents, one of which is better",
        note=f"Verdicts that one is better, in % of {config.tables:,} simulations, at ratio 0.3. "
        "Differences are in standard deviations of episodes.",
        first="rule",
        columns=[f"difference {difference:g}" for difference in differences],
        lines=lines,
    )


def agents(
    kinds: Sequence[tuple[int, float, float]],
) -> Callable[[np.random.Generator], list[Strata]]:
    """Return a function that simulates agents.

    Args:
        kinds: for each agent, the number of seeds, the ratio and the mean.
    """
    return lambda rng: [agent(rng, *kind) for kind in kinds]


def agent(rng: np.random.Generator, seeds: int, ratio: float, mean: float = 0.0) -> Strata:
    """Simulate an agent: for each training seed, the (E,) returns of its episodes."""
    means = mean + ratio * rng.normal(size=(seeds, 1))
    return list(means + rng.normal(size=(seeds, EPISODES)))


def generators(num: int) -> Iterator[np.random.Generator]:
    """Return a random generator for each simulation, the same ones for every rule."""
    return (np.random.default_rng(i) for i in range(num))


def share(rule: Rule, num: int, draw: Callable[[np.random.Generator], list[Strata]]) -> float:
    """Return in how many per cent of the simulations a rule finds any difference."""
    return 100 * float(np.mean([rule(draw(rng)) for rng in generators(num)]))


def in_per_cent(tables: list[list[bool]]) -> list[float]:
    """Return means over simulations, in per cent."""
    return [100 * float(share) for share in np.mean(tables, axis=0)]


def new_rule(players: Sequence[Strata]) -> bool:
    """Return whether the new rule finds any two players different."""
    evidence = [weigh(one, other) for one, other in combinations(players, 2)]
    return min(correct(evidence)) <= ALPHA


def old_rule(players: Sequence[Strata]) -> bool:
    """Return whether the old rule finds any two players different."""
    return any(old_verdict(one, other) for one, other in combinations(players, 2))


def old_verdict(ours: Strata, theirs: Strata) -> bool:
    """Return whether the old rule finds two players different.

    It did so if 0.5 was outside the 95 % interval of the probability that an episode of one beats
    an episode of the other: percentile bootstrap, 2,000 resamples of the episodes of each seed. It
    treated training seeds as fixed and did not correct for the number of pairs. (With fewer than
    20 episodes, a Mann-Whitney test had to agree.)
    """
    rng = np.random.default_rng(0)
    left, right = np.concatenate(ours), np.concatenate(theirs)
    order_left, order_right = np.argsort(left), np.argsort(right)
    left, right = left[order_left], right[order_right]
    our_counts = resampled(ours, rng)[:, order_left]
    their_counts = resampled(theirs, rng)[:, order_right]
    # Numbers from a continuous distribution have no ties.
    below = np.pad(np.cumsum(their_counts, axis=1), ((0, 0), (1, 0)))
    wins = (our_counts * below[:, np.searchsorted(right, left)]).sum(axis=1)
    low, high = np.percentile(wins / (len(left) * len(right)), [2.5, 97.5])
    return not low <= 0.5 <= high


def resampled(strata: Strata, rng: np.random.Generator) -> Any:
    """Return how often each episode is in each of 2,000 resamples, which are taken per seed."""
    counts = []
    for stratum in strata:
        num = len(stratum)
        drawn = rng.integers(num, size=(2000, num)) + num * np.arange(2000)[:, None]
        counts.append(np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape))
    return np.concatenate(counts, axis=1)


def markdown(config: Simulation, sections: Sequence[Section], seconds: float) -> str:
    """Return the results as Markdown."""
    lines = [
        "# False verdicts\n",
        "`python -m benchmarks.verdicts`\n",
        "How often `compare` says that equal players differ, by simulation. Returns are normally "
        f"distributed; each policy has {EPISODES} episodes. Ratio: the standard deviation between "
        "an agent's training seeds, divided by that between episodes. At most 5 % of the verdicts "
        "should be wrong.\n",
        "Old rule: one half is outside of the 95 % bootstrap interval, over episodes only, of the "
        "probability of improvement, without a correction for the number of pairs. New rule: "
        "`evaluation/verdicts.py`.\n",
    ]
    for section in sections:
        table = [
            (name, *(f"{value:.1f}" for value in values)) for name, values in section.lines.items()
        ]
        lines += [f"## {section.title}\n", f"{section.note}\n"]
        lines += [*markdown_table((section.first, *section.columns), table, text=(0,)), ""]
    made = f"Simulations: {config.old:,} with the old rule, {config.new:,} of two agents with the "
    made += f"new one, {config.tables:,} of everything else; random numbers are seeded. "
    made += f"{seconds / 60:.0f} minutes, commit {git_revision()}."
    return "\n".join([*lines, made, ""])


if __name__ == "__main__":
    main()
