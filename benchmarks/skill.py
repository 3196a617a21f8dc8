"""Keep the results of a suite: its comparisons, with the learning curves of all seeds.

    python evaluate.py suite
    python -m benchmarks.skill runs/suite
    python -m docs.results

The second command copies the report of every environment to benchmarks/results/suite, in place of
an earlier one of the same environment, and the third one writes the results page from it. A suite
need not be complete: `suite --no-train` compares the seeds that are trained.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from deploy.card import command_anywhere
from envs.registry import folder_name
from evaluation.printing import print_line
from evaluation.report.skill import Document, read_documents
from storage.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "suite"
_PLACE = "runs/suite"  # Where the commands on the results page put a suite.


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Which results are kept."""

    suite: tyro.conf.Positional[Path] = Path(_PLACE)
    """The folder that the suite wrote."""
    out: Path = RESULTS
    """The folder to copy to."""


def main(kept: Kept) -> None:
    """Copy the comparisons of a suite."""
    folder = kept.suite / "compare"
    documents = read_documents([folder])
    for file, document in zip(sorted(folder.glob("*/compare.json")), documents, strict=True):
        name = folder_name(document["env"])
        content = kept_json(document, kept.suite)
        write_atomically(kept.out / f"{name}.json", content.encode())
        report = kept_markdown(file.with_suffix(".md").read_text(), kept.suite)
        write_atomically(kept.out / f"{name}.md", report.encode())
        print_line(f"written to {kept.out}: {name}.json, {name}.md")


def kept_markdown(text: str, suite: Path) -> str:
    """Return the report of a comparison without its pictures, as if made in `runs/suite`."""
    lines = [line for line in text.splitlines() if not line.startswith("![")]
    return "\n".join(lines).replace(f"{suite}/", f"{_PLACE}/").rstrip() + "\n"


def kept_json(document: Document, suite: Path) -> str:
    """Return a comparison as JSON with lists of numbers on one line, as if made in `runs/suite`.

    Args:
        document: the comparison.
        suite: the folder of the suite, as in the names of its run folders.
    """
    content: dict[str, Any] = json.loads(json.dumps(document).replace(f"{suite}/", f"{_PLACE}/"))
    for result in content["results"]:
        for policy in result["policies"]:
            if training := policy.get("training"):
                training["command"] = command_anywhere(training)
    text = json.dumps(content, indent=1)
    return re.sub(r"\[[\d\s.,eE+-]+\]", lambda m: f"[{' '.join(m[0][1:-1].split())}]", text) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Kept, description=__doc__))
