"""The skill table: what agents score in all environments, over several training seeds.

It is made from the JSON of comparisons (`report.as_dict`), one for each environment, so that a
committed result gives the same table as a comparison that has just been made.

Axes: S training seeds, E episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.entries import BASELINES
from evaluation.report.curves import Curve
from evaluation.report.markdown import markdown_table, plain
from evaluation.report.tables import number, with_interval
from evaluation.statistics import Interval, iqm, over_seeds
from storage.files import FileError, read_json, write_atomically

COLUMNS = (
    "environment",
    "agent",
    "actions",
    "mean",
    "over new seeds",
    "IQM",
    "over new seeds",
    *BASELINES,
    "reference",
    "seeds",
    "env steps",
    "minutes",
)
"""Columns of the table of all environments."""
_SEEDS = COLUMNS.index("seeds")
# Two tables, because one would be wider than a page: means with what they are compared with, and
# the rest.
_PARTS = ((3, 4, 7, 8, 9), (5, 6, _SEEDS, 11, 12))
SEED_COLUMNS = (
    "agent",
    "seed",
    "mean, sampled",
    "mean, greedy",
    "env steps",
    "planned",
    "policy from",
    "minutes",
    "trained on",
    "commit",
)
"""Columns of the table of one environment's training seeds."""
NOTE = (
    "Mean and IQM (the mean of the middle half) of native returns, each with its 95 % interval "
    "over episodes (percentile bootstrap), which estimates what these policies would score on "
    "other episodes. The intervals over new seeds (Student's t of the seeds' means and IQMs) "
    "estimate what other trainings would score. The policy that was best in an evaluation during "
    "the training is scored; no scored episode was used to choose it."
)
_LARGEST = 2**26  # Bytes of the JSON of a comparison.
Document = Mapping[str, Any]
"""The JSON of one comparison."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One agent in one environment, with one way of choosing actions.

    Attributes:
        env: the environment.
        agent: name of the agent's run folders, without folder and seed.
        mode: sampled or greedy.
        result: the result in the comparison's JSON.
    """

    env: str
    agent: str
    mode: str
    result: Mapping[str, Any]

    @property
    def policies(self) -> list[Mapping[str, Any]]:
        """The policies of the training seeds, in the order of `result["returns"]`."""
        return list(self.result["policies"])

    @property
    def trainings(self) -> list[Mapping[str, Any]]:
        """How they were trained, without those of which nothing is known."""
        return [policy["training"] for policy in self.policies if policy.get("training")]

    @property
    def curves(self) -> list[Curve]:
        """The learning curves that are known, one for each training seed."""
        curves = [training["curve"] for training in self.trainings if training["curve"]]
        return [(np.array(c["env_steps"], float), np.array(c["returns"], float)) for c in curves]

    @property
    def iqm_over_seeds(self) -> Interval | None:
        """The interval of the IQM over new training seeds; None if there is only one seed."""
        of_seeds = [float(iqm(np.array(returns, float))) for returns in self.result["returns"]]
        return over_seeds(of_seeds) if len(of_seeds) > 1 else None


def read_documents(paths: Sequence[Path]) -> list[Document]:
    """Read the JSON of comparisons, which may come from a stranger.

    Args:
        paths: JSON files, or folders that hold them, also as ENV/compare.json.

    Raises:
        FileError: If there are none, or one is something else.
    """
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise FileError(
            f"{' '.join(map(str, paths))} holds no comparison; name a compare.json, or a folder "
            "that compare or suite wrote"
        )
    return [_read(file) for file in files]


def _read(file: Path) -> Document:
    document = read_json(file, _LARGEST)
    try:
        rows, table = rows_of(document), [*skill_rows([document]), *seed_rows(document)]
        points = [len(steps) - len(returns) for row in rows for steps, returns in row.curves]
        if any(points) or not table:
            raise ValueError("a curve has as many env steps as returns")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{file} is not a comparison that compare or suite wrote") from error
    return document


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(path.glob("*/compare.json")) or sorted(path.glob("*.json"))


def rows_of(document: Document) -> list[Row]:
    """Return the rows of trained agents in one environment: sampled before greedy, best first."""
    results = [result for result in document["results"] if result["mode"]]
    modes = sorted(results, key=lambda result: str(result["mode"]), reverse=True)
    agents = list(dict.fromkeys(str(result["entry"]) for result in results))
    names = [Path(agent).name for agent in agents]
    if len(set(names)) < len(names):  # Agents of different folders have the same name.
        names = agents
    return [
        Row(env=str(document["env"]), agent=name, mode=result["mode"], result=result)
        for agent, name in zip(agents, names, strict=True)
        for result in modes
        if result["entry"] == agent
    ]


def lines_of(document: Document) -> dict[str, float]:
    """Return the scores to compare with: baselines, and the reference if one is known."""
    means = {result["name"]: float(result["mean"]) for result in document["results"]}
    lines = {name: means[name] for name in BASELINES if name in means}
    known = document.get("reference")
    return lines | ({"reference": float(known["mean"])} if known else {})


def skill_rows(documents: Sequence[Document]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of all environments, in the order of `COLUMNS`."""
    for document in documents:
        lines = lines_of(document)
        beside = [number(lines[name]) if name in lines else "" for name in COLUMNS[7:10]]
        for row in rows_of(document):
            r, middle = row.result, row.iqm_over_seeds
            seeds = (r["seeds_low"], r["seeds_high"])
            yield (
                row.env,
                row.agent,
                row.mode,
                with_interval(r["mean"], r["ci_low"], r["ci_high"]),
                "" if seeds[0] is None else f"{number(seeds[0])} to {number(seeds[1])}",
                with_interval(r["iqm"], r["iqm_low"], r["iqm_high"]),
                f"{number(middle.low)} to {number(middle.high)}" if middle else "",
                *beside,
                ", ".join(str(policy["seed"]) for policy in row.policies),
                _range([_of_training(policy, "env_steps") for policy in row.policies]),
                _range([_of_training(policy, "seconds") / 60 for policy in row.policies]),
            )


def seed_rows(document: Document) -> list[tuple[str, ...]]:
    """Return one row for each training seed of one environment, in the order of `SEED_COLUMNS`."""
    means: dict[tuple[str, Any], dict[str, str]] = {}
    policies: dict[tuple[str, Any], Mapping[str, Any]] = {}
    for row in rows_of(document):
        for policy, mean in zip(row.policies, row.result["seed_means"], strict=True):
            key = (row.agent, policy["seed"])
            means.setdefault(key, {})[row.mode] = number(mean)
            policies[key] = policy
    return [
        (
            agent,
            str(seed),
            *(means[agent, seed].get(mode, "") for mode in ("sampled", "greedy")),
            f"{_of_training(policy, 'env_steps'):,.0f}",
            *_about(policy),
        )
        for (agent, seed), policy in policies.items()
    ]


def _about(policy: Mapping[str, Any]) -> tuple[str, ...]:
    training = policy.get("training") or {}
    planned, hardware = training.get("planned"), training.get("hardware") or {}
    device = hardware.get("gpu") or hardware.get("cpu") or ""
    return (
        f"{planned:,.0f}" if planned else "",
        f"{policy['env_steps']:,.0f}",
        f"{_of_training(policy, 'seconds') / 60:,.1f}",
        f"{device}, {hardware['cores']} cores" if hardware else "",
        str(training.get("git") or "")[:8],
    )


def _of_training(policy: Mapping[str, Any], name: str) -> float:
    """Return the env steps or seconds of a whole training, else those until its policy."""
    training = policy.get("training") or {}
    return float(training.get(name) or policy[name])


def _range(values: Sequence[float]) -> str:
    shown = list(dict.fromkeys(f"{value:,.0f}" for value in (min(values), max(values))))
    return " to ".join(shown)


def write_table(documents: Sequence[Document], folder: Path) -> None:
    """Write table.md, the skill table with one table of seeds for each environment."""
    lines = [*table(documents), ""]
    for document in documents:
        lines += [f"## {plain(document['env'])}", "", *seed_table(document), ""]
    write_atomically(folder / "table.md", "\n".join(lines).encode())


def table(documents: Sequence[Document]) -> list[str]:
    """Return the lines of the skill table, with how its numbers were obtained, as Markdown.

    Agents are named only if there are several in one environment.
    """
    rows = list(skill_rows(documents))
    has_several = len({row[:2] for row in rows}) > len({row[0] for row in rows})
    first = (0, 1, 2) if has_several else (0, 2)
    lines: list[str] = []
    for part in _PARTS:
        shown = (*first, *part)
        cells = [[row[column] for column in shown] for row in rows]
        text = [*range(len(first)), *(place for place, c in enumerate(shown) if c == _SEEDS)]
        lines += [*markdown_table([COLUMNS[column] for column in shown], cells, text=text), ""]
    return [*lines, plain(NOTE)]


def seed_table(document: Document) -> list[str]:
    """Return the lines of the table of one environment's training seeds, as Markdown."""
    return markdown_table(SEED_COLUMNS, seed_rows(document), text=(0, 8, 9))
