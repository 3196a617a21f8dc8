"""The tables of comparisons: their columns, and the text of their cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from envs import SCENARIOS
from envs.doom.scenarios import Reference
from evaluation.compare import MODES, Comparison, Result
from evaluation.entries import BASELINES
from evaluation.statistics import Score

OVER_EPISODES, OVER_SEEDS = "95 % over episodes", "95 % over new seeds"
COLUMNS = (
    "rank",
    "player",
    "mean",
    OVER_EPISODES,
    OVER_SEEDS,
    "IQM",
    "median",
    "std",
    "seeds' means",
    "min to max",
    "episode length",
    "frames trained",
    "training time",
    "speed",
)
"""Columns of the table of one environment."""
SUMMARY_COLUMNS = ("environment", "player", *MODES, *BASELINES, "reference")
"""Columns of the table of all environments."""

_ELSEWHERE = {
    "CarRacing-v3": Reference(
        mean=906.0,
        source="World Models, Ha and Schmidhuber 2018: CarRacing-v0, continuous actions",
    ),
}


def reference(env: str) -> Reference | None:
    """Return the published or derived score to compare with in an environment, if one is known."""
    scenario = SCENARIOS.get(env)
    return scenario.reference if scenario else _ELSEWHERE.get(env)


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the rows of a table in the order of `COLUMNS`, the reference last if one is known."""
    table = [
        _row(result, rank, comparison.frame_skip)
        for result, rank in zip(comparison.results, comparison.ranks, strict=True)
    ]
    known = reference(comparison.config.env)
    if known:
        cells = ("", "reference", number(known.mean))
        table.append((*cells, *[""] * (len(COLUMNS) - len(cells))))
    return table


def _row(result: Result, rank: int, frame_skip: int) -> tuple[str, ...]:
    score, is_trained = result.score, bool(result.contestants)
    mean, over_episodes, *others = score_cells(score)
    return (
        str(rank),
        result.name,
        mean,
        over_episodes,
        _over_seeds(score),
        *others,
        ", ".join(number(mean) for mean in score.seed_means) if result.is_agent else "",
        f"{number(score.min)} to {number(score.max)}",
        f"{score.mean_length:,.0f} env steps",
        f"{result.env_steps * frame_skip:,.0f}" if is_trained else "",
        f"{result.seconds / 60:,.1f} min" if is_trained else "",
        f"{result.env_steps_per_s:,.0f} env steps/s",
    )


def score_cells(score: Score) -> tuple[str, ...]:
    """Return the mean, its interval over episodes, the IQM with its interval, median and std."""
    return (
        number(score.mean),
        f"{number(score.ci_low)} to {number(score.ci_high)}",
        with_interval(score.iqm, score.iqm_low, score.iqm_high),
        number(score.median),
        number(score.std),
    )


def _over_seeds(score: Score) -> str:
    """Return the interval of the mean over new training seeds; empty if there is only one seed."""
    if score.seeds_low is None or score.seeds_high is None:
        return ""
    return f"{number(score.seeds_low)} to {number(score.seeds_high)}"


def summary(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return the mean scores of each entry in each environment, with those to compare with."""
    return [row for comparison in comparisons for row in _summary_of(comparison)]


def _summary_of(comparison: Comparison) -> list[dict[str, Any]]:
    means = {
        (result.entry, result.mode): {
            "mean": result.score.mean,
            "ci_low": result.score.ci_low,
            "ci_high": result.score.ci_high,
            "seeds_low": result.score.seeds_low,
            "seeds_high": result.score.seeds_high,
        }
        for result in comparison.results
    }
    known = reference(comparison.config.env)
    return [
        {
            "env": comparison.config.env,
            "player": entry,
            **{mode: means.get((entry, mode)) for mode in MODES},
            **{name: means.get((name, "")) for name in BASELINES},
            "reference": asdict(known) if known else None,
            "protocol": comparison.protocol.facts(comparison.config),
        }
        for entry in dict.fromkeys(result.entry for result in comparison.results if result.mode)
    ]


def summary_rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Return the rows of the table of all environments, in the order of `SUMMARY_COLUMNS`."""
    return [
        (row["env"], row["player"], *(_cell(row[column]) for column in SUMMARY_COLUMNS[2:]))
        for row in summary(comparisons)
    ]


def _cell(score: dict[str, Any] | None) -> str:
    if score is None:
        return ""
    if "source" in score:
        return number(score["mean"])
    cell = with_interval(score["mean"], score["ci_low"], score["ci_high"])
    if score["seeds_low"] is None:
        return cell
    seeds = f"{number(score['seeds_low'])} to {number(score['seeds_high'])}"
    return f"{cell.removesuffix(')')}; new seeds: {seeds})"


def number(value: float) -> str:
    """Return a return or a score as text."""
    return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.1f}"


def with_interval(estimate: float, low: float, high: float) -> str:
    """Return a return or a score with its interval as text."""
    return f"{number(estimate)} ({number(low)} to {number(high)})"
