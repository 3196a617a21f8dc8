"""Put the best policy of each scenario of a suite into the zoo, with a card that states its score.

    python evaluate.py suite --out runs/suite
    python benchmarks/zoo.py runs/suite

Of several training seeds, the one with the best evaluation during training is taken. The scores on
the card are of fresh episodes that were not used for any selection.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path
from typing import Any

from deploy.card import origin, training_command
from evaluation.compare import MODES, Comparison, compare
from evaluation.entries import ZOO, find_entries
from evaluation.protocol import Protocol
from evaluation.report.markdown import markdown, summary_markdown
from evaluation.report.report import as_dict
from storage.files import write_json
from storage.run_folder import RunFolder

_MAX_BYTES = 5_000_000
_SINCE = (
    "trained after commit 97d1c4b, which fixed the gradient of the first layer "
    "(benchmarks/results/gradient.md)."
)


def main(suite: Path) -> None:
    """Fill the zoo with policies of a suite."""
    comparisons = []
    for folder in sorted({run.parent.parent for run in suite.glob("*/*/best.safetensors")}):
        name = folder.name
        best = max(
            (RunFolder(run.parent) for run in folder.glob("*/best.safetensors")),
            key=best_evaluation,
        )
        home = ZOO / name
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(best.best_file, home / "policy.safetensors")
        assert (home / "policy.safetensors").stat().st_size < _MAX_BYTES
        training = best.read_record()
        training["command"] = training_command(training)
        write_json(home / "training.json", training)
        (entry,) = find_entries([f"zoo/{name}"], trust=False)
        comparison = compare([entry], Protocol(), modes=list(MODES), progress=print)
        (home / "README.md").write_text(card(name, comparison, training))
        write_json(home / "compare.json", as_dict(comparison))
        comparisons.append(comparison)
    (ZOO / "README.md").write_text(f"{summary_markdown(comparisons)}\nAll were {_SINCE}\n")


def best_evaluation(run: RunFolder) -> float:
    """Return the highest mean return of an evaluation during training."""
    with (run.path / "progress.csv").open(newline="") as file:
        scores = [row["eval/mean_reward"] for row in csv.DictReader(file)]
    return max(float(score) for score in scores if score)


def card(name: str, comparison: Comparison, training: dict[str, Any]) -> str:
    """Return the card of a policy."""
    config = training["config"]
    seed, total = config["seed"], config["total_env_steps"]
    trained = next(result for result in comparison.results if result.contestants)
    return markdown(comparison) + (
        f"\nTrained by `python train.py {name} --seed {seed} --total-env-steps {total}` "
        f"{origin(training, trained.contestants[0].file.about)}. The whole configuration is in "
        f"training.json.\n\nIt was {_SINCE}\n\nWatch it: `python evaluate.py watch zoo/{name}`\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", type=Path, help="folder that the suite wrote")
    main(parser.parse_args().suite)
