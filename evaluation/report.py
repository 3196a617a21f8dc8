"""A comparison in words, tables, JSON and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from typing import Any

from agents.checkpoint import write_atomically, write_json
from agents.run import git_revision, hardware, versions
from envs import SCENARIOS
from envs.scenarios import Score as Reference
from evaluation import plots
from evaluation.compare import MODES, Comparison, Pair, Result
from evaluation.curves import learning_curves
from evaluation.entries import BUILT_IN
from evaluation.statistics import Score
from evaluation.verdicts import AGENTS, ALPHA, EACH_POLICY, FEWEST_SEEDS, enough_seeds

OVER_EPISODES, OVER_SEEDS = "95 % over episodes", "95 % over new seeds"
COLUMNS = (
    *("rank", "player", "mean", OVER_EPISODES, OVER_SEEDS, "IQM", "median", "std"),
    *("seeds' means", "min to max", "episode length", "frames trained", "trained for", "plays"),
)
# Two tables, because one would be wider than a page.
_SPLIT = COLUMNS.index("min to max")
_SCORES, _CIRCUMSTANCES = COLUMNS[:_SPLIT], ("player", *COLUMNS[_SPLIT:])
SUMMARY_COLUMNS = ("world", "player", *MODES, *BUILT_IN, "reference")
_LONGEST = 60  # Letters of a folder's name, of at most 4 bytes each; a file system allows 255.


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
        cells = ("", "reference", number(known.mean))
        table.append((*cells, *[""] * (len(COLUMNS) - len(cells))))
    return table


def _row(result: Result, rank: int, frame_skip: int) -> tuple[str, ...]:
    score, trained = result.score, bool(result.contestants)
    mean, over_episodes, *others = score_cells(score)
    return (
        *(str(rank), result.name, mean, over_episodes, over_seeds(score), *others),
        ", ".join(number(mean) for mean in score.seed_means) if result.is_agent else "",
        f"{number(score.min)} to {number(score.max)}",
        f"{score.mean_length:,.0f} env steps",
        f"{result.env_steps * frame_skip:,.0f}" if trained else "",
        f"{result.seconds / 60:,.1f} min" if trained else "",
        f"{result.env_steps_per_s:,.0f} env steps/s",
    )


def score_cells(score: Score) -> tuple[str, ...]:
    """Write down mean, its 95 % interval over episodes, IQM with its own, median and deviation."""
    return (
        number(score.mean),
        f"{number(score.ci_low)} to {number(score.ci_high)}",
        with_interval(score.iqm, score.iqm_low, score.iqm_high),
        number(score.median),
        number(score.std),
    )


def over_seeds(score: Score) -> str:
    """Write down the mean's 95 % interval over new training seeds; nothing of one seed."""
    if score.seeds_low is None or score.seeds_high is None:
        return ""
    return f"{number(score.seeds_low)} to {number(score.seeds_high)}"


def footnotes(comparison: Comparison) -> list[str]:
    """Say how the numbers came about, and where the reference is from."""
    return [
        comparison.protocol.sentence(comparison.config),
        _about_intervals(any(result.is_agent for result in comparison.results)),
        _about_verdicts(comparison),
        *_about_few_seeds(comparison),
        *_source(comparison),
    ]


def _about_intervals(of_agents: bool) -> str:
    note = (
        "Intervals over episodes (percentile bootstrap) tell what these policies would score on "
        "other episodes."
    )
    if not of_agents:
        return note + " What another training would score they do not tell."
    return (
        f"{note} Intervals over new seeds (Student's t of the seeds' means) are of what the "
        "agent scores on average over training seeds, of which these are a sample."
    )


def _about_verdicts(comparison: Comparison) -> str:
    abouts = {pair.evidence.about for pair in comparison.pairs}
    notes = [
        "Verdicts on policies are about these policies, not about how they were trained: whether "
        "an episode of one is above one of the other's more often than below (Brunner-Munzel and "
        "Mann-Whitney tests, which have to agree)."
    ]
    if AGENTS in abouts:
        notes.append(
            "Verdicts on agents are about other training seeds as well: whether mean returns of "
            "seeds differ (exact permutation test and Welch's t test, which have to agree; against "
            "a single policy or a player that learned nothing, Welch's alone)."
        )
    if EACH_POLICY in abouts:
        notes.append(
            f"Fewer than {FEWEST_SEEDS} seeds against a single policy or a player that learned "
            "nothing: the verdict is about these policies, each of which has to be better."
        )
    notes.append(
        "P-values are corrected for all pairs of the table (Holm): were all players equal, any two "
        f"of them would be told apart in at most {100 * ALPHA:g} % of such tables. A rank is 1 and "
        "one more for each player that is better by verdict."
    )
    return " ".join(notes)


def _about_few_seeds(comparison: Comparison) -> list[str]:
    num = sum(not pair.evidence.can_decide for pair in comparison.pairs)
    if not num:
        return []
    total = len(comparison.pairs)
    enough = f"{enough_seeds(1)} seeds of each are enough where one pair is compared"
    if total > 1:
        enough += f", {enough_seeds(total)} for any pair of this table"
    return [
        f"Too few training seeds: {num} of {_pairs(comparison)} are agents with so few seeds that "
        "no difference between them, however large, could be told from luck. That is not to say "
        f"that they are equal; {enough}."
    ]


def _pairs(comparison: Comparison) -> str:
    num = len(comparison.pairs)
    return f"{num} pair" if num == 1 else f"{num} pairs"


def _source(comparison: Comparison) -> list[str]:
    known = reference(comparison.config.env)
    return [f"Reference: {known.source}."] if known else []


def verdict(pair: Pair, num_pairs: int) -> str:
    """Say which of two is better, or that this cannot be told, and what that is about.

    Args:
        pair: the two.
        num_pairs: how many pairs the table has.
    """
    one, other = _called(pair.better, pair), _called(pair.worse, pair)
    if pair.is_told_apart:
        said = f"{one} is better than {other.removesuffix(',')}"
    else:
        said = f"{one} and {other} cannot be told apart".replace("each of the", "the")
    if not said.startswith(pair.better.name):
        said = said[0].upper() + said[1:]
    return f"{said}: {'; '.join(_grounds(pair, num_pairs))}"


def verdicts(comparison: Comparison) -> list[str]:
    """Say of each result and the next one which is better."""
    return [verdict(pair, len(comparison.pairs)) for pair in comparison.neighbours]


def _called(result: Result, pair: Pair) -> str:
    """Name a result, and what of it a verdict is about."""
    if result.is_agent and pair.evidence.about == AGENTS:
        return f"the agent {result.name}, over training seeds,"
    if result.is_agent:
        return f"each of the {len(result.returns)} policies of {result.name}"
    return f"this policy, {result.name}," if result.mode else result.name


def _grounds(pair: Pair, num_pairs: int) -> list[str]:
    """Give the numbers that a verdict rests on, and why it may have been out of reach."""
    evidence, p = pair.evidence, pair.probability
    grounds = []
    if evidence.difference:
        d = evidence.difference
        higher = "higher" if d.estimate >= 0 else "lower"
        ends = (d.low, d.high) if d.estimate >= 0 else (-d.high, -d.low)
        by = with_interval(abs(d.estimate), *ends)
        grounds.append(f"mean {higher} by {by}, over new seeds")
    if evidence.about != AGENTS:
        grounds.append(f"probability {p.estimate:.2f} ({p.low:.2f} to {p.high:.2f}), over episodes")
    if evidence.can_decide:
        p_value = pair.p_corrected
        grounds.append("p < 0.001" if p_value < 0.001 else f"p = {_significant(p_value)}")
    if not pair.is_told_apart and evidence.least_p > ALPHA / num_pairs:
        seeds = f"{len(pair.better.returns)} seeds against {len(pair.worse.returns)}"
        cannot = (
            "can hardly decide" if evidence.can_decide else "cannot decide, whatever they score"
        )
        grounds.append(
            f"{seeds} {cannot} (p is {_significant(evidence.least_p)} at least, uncorrected), "
            f"{enough_seeds(num_pairs)} of each would be enough"
        )
    return grounds


def _significant(p_value: float) -> str:
    return f"{p_value:.2f}" if p_value >= 0.1 else f"{p_value:.3f}"


def markdown(comparison: Comparison, pictures: Sequence[str] = ()) -> str:
    """Write a comparison down for a README or a wiki.

    Args:
        comparison: what was compared.
        pictures: names of images beside the file.
    """
    lines = [f"# {plain(comparison.config.env)}: native return", ""]
    table = rows(comparison)
    played = table[: len(comparison.results)]
    lines += [*markdown_table(_SCORES, [row[:_SPLIT] for row in table], text=(1,)), ""]
    circumstances = [(row[1], *row[_SPLIT:]) for row in played]
    lines += [*markdown_table(_CIRCUMSTANCES, circumstances, text=(0,)), ""]
    lines += [f"{note}\n" for note in footnotes(comparison)]
    lines += [f"- {plain(said)}" for said in verdicts(comparison)]
    lines += ["", *(f"![{name.partition('.')[0]}]({name})" for name in pictures)]
    return "\n".join(lines).rstrip() + "\n"


def summary_rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Give the rows of a table over all worlds, in the order of `SUMMARY_COLUMNS`."""
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


def summary(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Give each world and entry with its means, their intervals and what they are read beside."""
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
            **{name: means.get((name, "")) for name in BUILT_IN},
            "reference": asdict(known) if known else None,
            "protocol": comparison.protocol.facts(comparison.config),
        }
        for entry in dict.fromkeys(result.entry for result in comparison.results if result.mode)
    ]


def summary_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Say how the numbers came about, those of each world too."""
    results = [result for comparison in comparisons for result in comparison.results]
    notes = [_about_intervals(any(result.is_agent for result in results))]
    for comparison in comparisons:
        sentence = comparison.protocol.sentence(comparison.config)
        said = " ".join([sentence, *_source(comparison)])
        notes.append(f"{comparison.config.env}: {said}")
    return notes


def summary_markdown(comparisons: Sequence[Comparison]) -> str:
    """Write down one table over all worlds."""
    lines = ["# All worlds: mean native return, 95 % interval over episodes", ""]
    lines += [*markdown_table(SUMMARY_COLUMNS, summary_rows(comparisons), text=(0, 1)), ""]
    lines += [f"- {plain(note)}" for note in summary_notes(comparisons)]
    return "\n".join(lines) + "\n"


def markdown_table(
    columns: Sequence[str], table: Sequence[Sequence[str]], text: Sequence[int]
) -> list[str]:
    """Give the lines of a table; columns of text, by their index, stand to the left."""
    marks = ["---" if column in text else "---:" for column in range(len(columns))]
    cells = [[plain(cell) for cell in row] for row in (columns, *table)]
    return [f"| {' | '.join(row)} |" for row in (cells[0], marks, *cells[1:])]


def plain(text: str) -> str:
    """Keep a name from being read as Markdown or HTML."""
    text = re.sub(r"[&<>|`*~$\\\[\]]|(?<![^\W_])_|_(?![^\W_])", lambda m: f"&#{ord(m[0])};", text)
    return re.sub(r"\s", " ", text)


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Give everything, for JSON: every return of every episode included."""
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


def write_report(comparison: Comparison, folder: Path) -> None:
    """Write compare.md, compare.json and pictures into a folder."""
    title, unit = comparison.config.env, "native return"
    known = reference(comparison.config.env)
    line = (f"reference: {known.source}", known.mean) if known else None
    scores = {result.name: result.score for result in comparison.results}
    returns = {result.name: result.returns for result in comparison.results}
    pairs = [
        (pair.better.name, pair.worse.name, pair.probability, pair.is_told_apart)
        for pair in comparison.neighbours
    ]
    figures = {
        "scores.svg": plots.intervals(title, unit, scores, line),
        "profiles.svg": plots.profiles(title, unit, returns),
        "improvement.svg": plots.improvement(title, pairs),
    }
    learned = learning_curves(comparison)
    if learned:
        figures["curves.svg"] = plots.curves(title, unit, learned)
    else:
        (folder / "curves.svg").unlink(missing_ok=True)  # An earlier comparison's.
    for name, figure in figures.items():
        write_atomically(folder / name, plots.svg(figure).encode())
    write_atomically(folder / "compare.md", markdown(comparison, list(figures)).encode())
    write_json(folder / "compare.json", as_dict(comparison))


def write_summary(comparisons: Sequence[Comparison], folder: Path) -> None:
    """Write summary.md and summary.json, over all worlds, into a folder."""
    write_atomically(folder / "summary.md", summary_markdown(comparisons).encode())
    content = {"rows": summary(comparisons), **_circumstances()}
    write_json(folder / "summary.json", content)


def folder_names(names: Iterable[str]) -> list[str]:
    """Give a folder's name for each: none leads elsewhere, is too long, or comes twice."""
    folders: list[str] = []
    for name in names:
        clean = re.sub(r"[^\w.()=-]+", "-", name)[-_LONGEST:].strip("-.") or "unnamed"
        numbered = (f"{clean}-{number}" for number in count(2))
        folders.append(next(f for f in chain([clean], numbered) if f not in folders))
    return folders


def number(value: float) -> str:
    """Write a return or a score down."""
    return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.1f}"


def with_interval(estimate: float, low: float, high: float) -> str:
    """Write a return or a score down, and its interval in brackets."""
    return f"{number(estimate)} ({number(low)} to {number(high)})"
