"""Comparisons as files: Markdown, JSON and figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from typing import Any

from evaluation.compare import Comparison
from evaluation.entries import locate
from evaluation.report import curve_plots, plots
from evaluation.report.curves import learning_curves
from evaluation.report.layout import FORMATS, rendered
from evaluation.report.looks import looks_of, renamed, short_names
from evaluation.report.markdown import markdown, summary_markdown
from evaluation.report.tables import reference, summary
from evaluation.report.trainings import training_of
from evaluation.verdicts import ALPHA, enough_seeds
from storage.files import write_atomically, write_json
from storage.provenance import git_revision, hardware, versions

_LONGEST = 60  # Characters of a folder's name, each up to 4 bytes; a file system allows 255 bytes.


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison with every return of every episode, for JSON.

    With each policy is how it was trained, with its learning curve, see `trainings.training_of`.
    """
    known = reference(comparison.config.env)
    return {
        "env": comparison.config.env,
        "protocol": comparison.protocol.facts(comparison.config),
        "reference": asdict(known) if known else None,
        "results": [
            {
                "name": result.name,
                "entry": result.entry,
                "mode": result.mode,
                "rank": rank,
                **result.score.as_dict(),
                "env_steps_per_s": result.env_steps_per_s,
                "policies": [
                    {
                        "path": str(contestant.path),
                        **asdict(contestant.file.about),
                        "training": training_of(locate(contestant.path)),
                    }
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
                "told_apart": pair.is_significant,
                "about": pair.evidence.about,
                "difference": pair.evidence.difference and asdict(pair.evidence.difference),
                "p_value": pair.evidence.p_value,
                "p_corrected": pair.p_corrected,
                "least_p": pair.evidence.least_p,
            }
            for pair in comparison.pairs
        ],
        "correction": {
            "method": "Holm",
            "level": ALPHA,
            "pairs": sum(pair.evidence.can_decide for pair in comparison.pairs),
            "enough_seeds": enough_seeds(len(comparison.pairs)),
        },
        **_circumstances(),
    }


def _circumstances() -> dict[str, Any]:
    return {"git": git_revision(), "versions": versions(), "hardware": hardware()}


def write_report(comparison: Comparison, folder: Path) -> dict[str, Any]:
    """Write compare.md, compare.json and figures, as SVG, PNG and PDF, into a folder.

    Returns:
        What is in compare.json, see `as_dict`.
    """
    title, unit = comparison.config.env, "native return"
    known = reference(comparison.config.env)
    line = (f"reference: {known.source}", known.mean) if known else None
    names = [result.name for result in comparison.results]
    short = short_names([*names, *(result.entry for result in comparison.results)])
    looks = looks_of(short[name] for name in names)
    scores = {short[result.name]: result.score for result in comparison.results}
    returns = {short[result.name]: result.returns for result in comparison.results}
    pairs = [
        (short[pair.better.name], short[pair.worse.name], pair.probability, pair.is_significant)
        for pair in comparison.neighbours
    ]
    figures = {
        "scores": plots.intervals(title, unit, scores, line, looks),
        "profiles": plots.profiles(title, unit, returns, looks),
        "improvement": plots.improvement(title, pairs),
    }
    curves = renamed(learning_curves(comparison), short)
    if curves:
        figures["curves"] = curve_plots.curves(title, unit, curves, looks)
    for kind in FORMATS:
        (folder / f"curves.{kind}").unlink(missing_ok=True)  # That of an earlier comparison.
        for name, figure in figures.items():
            write_atomically(folder / f"{name}.{kind}", rendered(figure, kind))
    images = [f"{name}.svg" for name in figures]
    write_atomically(folder / "compare.md", markdown(comparison, images).encode())
    document = as_dict(comparison)
    write_json(folder / "compare.json", document)
    return document


def write_summary(comparisons: Sequence[Comparison], folder: Path) -> None:
    """Write summary.md and summary.json, about all environments, into a folder."""
    write_atomically(folder / "summary.md", summary_markdown(comparisons).encode())
    content = {"rows": summary(comparisons), **_circumstances()}
    write_json(folder / "summary.json", content)


def folder_names(names: Iterable[str]) -> list[str]:
    """Return a different folder name for each name, which is valid and short on any file system."""
    folders: list[str] = []
    for name in names:
        clean = re.sub(r"[^\w.()=-]+", "-", name)[-_LONGEST:].strip("-.") or "unnamed"
        numbered = (f"{clean}-{number}" for number in count(2))
        folders.append(next(f for f in chain([clean], numbered) if f not in folders))
    return folders
