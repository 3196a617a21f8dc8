"""Put the best policy of each environment of a suite into the zoo, with card, GIF and replay page.

    python evaluate.py suite
    python -m benchmarks.zoo runs/suite
    python -m benchmarks.zoo runs/suite basic take_cover    # only these

Of several training seeds, the one with the best evaluation during training is taken. The scores on
the card are of fresh episodes that were not used for any selection. A policy that is in the zoo
already is not scored again. The replay page, which is large, is written to runs/zoo/NAME.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from commands import replay
from deploy.card import command_anywhere, origin
from evaluation.compare import MODES, Comparison, compare
from evaluation.entries import ZOO, find_entries
from evaluation.printing import print_line
from evaluation.protocol import Protocol
from evaluation.replay.sheet import film, write_film
from evaluation.report.markdown import markdown
from evaluation.report.report import as_dict
from evaluation.report.skill import read_documents, table
from storage.files import write_json
from storage.run_folder import RunFolder

_MAX_BYTES = 5_000_000
_SINCE = (
    "trained after commit 97d1c4b, which fixed the gradient of the first layer "
    "(benchmarks/results/gradient.md)."
)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Which policies are taken."""

    suite: tyro.conf.Positional[Path] = Path("runs/suite")
    """The folder that the suite wrote."""
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of folders in it. None: all."""


def main(kept: Kept) -> None:
    """Fill the zoo with policies of a suite."""
    folders = sorted({run.parent.parent for run in kept.suite.glob("*/*/best.safetensors")})
    for folder in folders:
        if not kept.names or folder.name in kept.names:
            with torch.no_grad():
                keep(folder.name, best_run(folder))
    (ZOO / "README.md").write_text(readme())


def best_run(folder: Path) -> RunFolder:
    """Return the run with the best evaluation during training."""
    runs = (RunFolder(file.parent) for file in sorted(folder.glob("*/best.safetensors")))
    return max(runs, key=best_evaluation)


def best_evaluation(run: RunFolder) -> float:
    """Return the highest mean return of an evaluation during training."""
    with (run.path / "progress.csv").open(newline="") as file:
        scores = [row.get("eval/mean_reward") for row in csv.DictReader(file)]
    return max((float(score) for score in scores if score), default=float("-inf"))


def keep(name: str, run: RunFolder) -> None:
    """Copy the best policy of a run, score it, and write its card and pictures."""
    home = ZOO / name
    policy, scored = home / "policy.safetensors", home / "compare.json"
    is_same = policy.is_file() and policy.read_bytes() == run.best_file.read_bytes()
    if is_same and scored.exists():
        print_line(f"zoo/{name} is {run.path} already")
        return
    home.mkdir(parents=True, exist_ok=True)
    scored.unlink(missing_ok=True)  # Written last: without it, the next call starts over.
    shutil.copy(run.best_file, policy)
    assert policy.stat().st_size < _MAX_BYTES
    training = run.read_record()
    training["command"] = command_anywhere(training)
    training["config"]["run_dir"] = None  # A folder of the machine that trained it.
    write_json(home / "training.json", training)
    (entry,) = find_entries([f"zoo/{name}"], trust=False)
    comparison = compare([entry], Protocol(), modes=list(MODES), progress=print_line)
    (home / "README.md").write_text(card(name, comparison, training))
    path = Path(f"zoo/{name}")
    write_film(home / "replay.gif", film(path, (200, 150), 60, episodes=5))
    replay.run(replay.ReplayOptions(run=path, html=True, size="320x240"))
    write_json(scored, as_dict(comparison))


def card(name: str, comparison: Comparison, training: dict[str, Any]) -> str:
    """Return the card of a policy."""
    trained = next(result for result in comparison.results if result.contestants)
    return markdown(comparison) + (
        f"\nTrained by `{command_anywhere(training)}` "
        f"{origin(training, trained.contestants[0].file.about)}. The whole configuration is in "
        f"training.json.\n\nIt was {_SINCE}\n\n{pictures(name)}"
    )


def pictures(name: str) -> str:
    """Return the end of a card: how the policy plays, and the commands that show it."""
    return (
        "![The policy as it plays](replay.gif)\n\n"
        f"Watch it: `python evaluate.py watch zoo/{name}`. "
        f"A page to step through an episode: `python evaluate.py replay zoo/{name} --html`\n"
    )


def readme() -> str:
    """Return the page about all policies, from the comparisons beside them."""
    documents = read_documents([ZOO])
    names = [file.parent.name for file in sorted(ZOO.glob("*/compare.json"))]
    cards = ", ".join(f"[{name}]({name}/README.md)" for name in names)
    lines = ["# The zoo", "", *table(documents), "", f"Cards: {cards}.", ""]
    first, last = documents[0]["protocol"]["seeds"]
    lines += [
        f"Episodes {first} to {last}, which training never uses, at native reward and skill. Of "
        "several training seeds, the policy with the best evaluation during training is here; "
        "those of all seeds are in [the results](../docs/results.md).",
        "",
        f"All were {_SINCE}",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Kept, description=__doc__))
