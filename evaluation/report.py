"""A comparison in words, tables, JSON and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.checkpoint import write_atomically
from agents.run import git_revision, hardware, versions
from envs import SCENARIOS
from envs.scenarios import Score as Reference
from evaluation import plots
from evaluation.compare import Comparison, Pair, Result
from evaluation.curves import learning_curves

COLUMNS = (
    *("rank", "player", "mean", "95 % interval", "IQM", "median", "std", "min to max"),
    *("episode length", "seeds' means", "frames trained", "trained for", "plays"),
)


def reference(env: str) -> Reference | None:
    """Give the published or derived score that a world's are read beside, if one is known."""
    scenario = SCENARIOS.get(env)
    return scenario.reference if scenario else None


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Give a table's rows, in the order of `COLUMNS`; the reference last, if one is known."""
    table = [
        _row(result, rank, comparison.frame_skip)
        for result, rank in zip(comparison.results, comparison.ranks, strict=True)
    ]
    known = reference(comparison.config.env)
    if known:
        cells = ("", "reference", _number(known.mean))
        table.append((*cells, *[""] * (len(COLUMNS) - len(cells))))
    return table


def _row(result: Result, rank: int, frame_skip: int) -> tuple[str, ...]:
    score, several = result.score, len(result.returns) > 1
    trained = bool(result.contestants)
    return (
        str(rank),
        result.name,
        _number(score.mean),
        f"{_number(score.ci_low)} to {_number(score.ci_high)}",
        f"{_number(score.iqm)} ({_number(score.iqm_low)} to {_number(score.iqm_high)})",
        _number(score.median),
        _number(score.std),
        f"{_number(score.min)} to {_number(score.max)}",
        f"{score.mean_length:,.0f} env steps",
        ", ".join(_number(mean) for mean in score.seed_means) if several else "",
        f"{result.env_steps * frame_skip:,.0f}" if trained else "",
        f"{result.seconds / 60:,.1f} min" if trained else "",
        f"{result.env_steps_per_s:,.0f} env steps/s",
    )


def footnotes(comparison: Comparison) -> list[str]:
    """Say how the numbers came about, and where the reference is from."""
    notes = [
        comparison.protocol.sentence(comparison.config),
        "Intervals: percentile bootstrap over episodes, each training seed a stratum: they tell "
        "what these policies would score on other episodes. How far training seeds differ shows in "
        "the seeds' own means. Players share a rank where the 95 % interval of the probability "
        "that an episode of one beats an episode of the other includes one half.",
    ]
    known = reference(comparison.config.env)
    if known:
        notes.append(f"Reference: {known.source}.")
    return notes


def verdict(pair: Pair) -> str:
    """Say which of two is better, or that this cannot be told."""
    p = pair.probability
    chance = f"{p.estimate:.2f} ({p.low:.2f} to {p.high:.2f})"
    if pair.is_told_apart:
        return f"{pair.better.name} is better than {pair.worse.name}: probability {chance}"
    return f"{pair.better.name} and {pair.worse.name} cannot be told apart: probability {chance}"


def neighbours(pairs: Sequence[Pair]) -> list[Pair]:
    """Keep the pairs of results that follow each other in the ranking."""
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(pair.better.name, pair)
    return list(first.values())


def markdown(comparison: Comparison, pictures: Sequence[str] = ()) -> str:
    """Write a comparison down for a README or a wiki.

    Args:
        comparison: what was compared.
        pictures: names of images beside the file.
    """
    numbers = set(range(len(COLUMNS))) - {1}
    marks = ["---:" if column in numbers else "---" for column in range(len(COLUMNS))]
    lines = [f"# {comparison.config.env}: native return", ""]
    lines += [_line(COLUMNS), _line(marks), *map(_line, rows(comparison)), ""]
    lines += [f"{note}\n" for note in footnotes(comparison)]
    lines += [f"- {verdict(pair)}" for pair in neighbours(comparison.pairs())]
    lines += ["", *(f"![{name.partition('.')[0]}]({name})" for name in pictures)]
    return "\n".join(lines).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    # A name may be anything; within a table a bar would end its cell.
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Give everything, for JSON: every return of every episode included."""
    return {
        "env": comparison.config.env,
        "protocol": comparison.protocol.facts(comparison.config),
        "results": [
            {
                "name": result.name,
                "entry": result.entry,
                "mode": result.mode,
                "rank": rank,
                **result.score.as_dict(),
                "env_steps_per_s": result.env_steps_per_s,
                "policies": [
                    {"path": str(contestant.path), **asdict(contestant.file.about)}
                    for contestant in result.contestants
                ],
                "returns": [of_seed.tolist() for of_seed in result.returns],
            }
            for result, rank in zip(comparison.results, comparison.ranks, strict=True)
        ],
        "pairs": [
            {
                "better": pair.better.name,
                "worse": pair.worse.name,
                "probability": asdict(pair.probability),
                "told_apart": pair.is_told_apart,
            }
            for pair in comparison.pairs()
        ],
        "git": git_revision(),
        "versions": versions(),
        "hardware": hardware(),
    }


def write_report(comparison: Comparison, folder: Path) -> None:
    """Write compare.md, compare.json and pictures into a folder."""
    title, unit = comparison.config.env, "native return"
    known = reference(comparison.config.env)
    line = (f"reference: {known.source}", known.mean) if known else None
    scores = {result.name: result.score for result in comparison.results}
    returns = {result.name: result.returns for result in comparison.results}
    pairs = [(p.better.name, p.worse.name, p.probability) for p in neighbours(comparison.pairs())]
    figures = {
        "scores.svg": plots.intervals(title, unit, scores, line),
        "profiles.svg": plots.profiles(title, unit, returns),
        "improvement.svg": plots.improvement(title, pairs),
    }
    learned = learning_curves(comparison)
    if learned:
        figures["curves.svg"] = plots.curves(title, unit, learned)
    for name, figure in figures.items():
        write_atomically(folder / name, plots.svg(figure).encode())
    write_atomically(folder / "compare.md", markdown(comparison, list(figures)).encode())
    content = json.dumps(as_dict(comparison), indent=2) + "\n"
    write_atomically(folder / "compare.json", content.encode())


def _number(value: float) -> str:
    return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.1f}"
