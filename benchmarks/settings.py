"""Compare memories, encoders or targets of the critic: what agents learn with them, and how fast.

    nice -n 5 python -m benchmarks.settings memories --envs tests.agents.toy:MaskedCartPole-v1
    nice -n 5 python -m benchmarks.settings encoders --envs basic defend_the_center
    nice -n 5 python -m benchmarks.settings values

Each name is trained with otherwise the same settings and seeds, one training at a time, and its
last policy plays held-out episodes. A training that is there already is not repeated, so the
command can be interrupted. Speeds depend on what else the machine does: compare those of one table
only. The return at equal wall time is that of the last training episodes at the time when the
fastest training of the same seed had ended.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated, ClassVar

import tyro

from evaluation.statistics import over_seeds
from storage.provenance import git_revision, hardware
from storage.run_folder import RunFolder

_ROOT = Path(__file__).resolve().parent.parent
_POLE = "tests.agents.toy:MaskedCartPole-v1"
_MEMORY_TASKS: dict[str, str] = {
    # As in tests/agents/test_learning.py, where an LSTM learns it.
    _POLE: "--total-env-steps 100000 --num-envs 16 --rollout-length 64 --num-epochs 10 "
    "--learning-rate 1e-3 --anneal-learning-rate --gamma 0.98 --entropy-coef 0 --target-kl 0.02 "
    "--reward-scale 0.05 --normalize-obs --hidden-sizes 64",
    "MiniGrid-MemoryS7-v0": "--total-env-steps 200000",
    "MiniGrid-MemoryS11-v0": "--total-env-steps 200000",
    # Fireballs fly, and one frame does not show where to.
    "take_cover": "--total-env-steps 150000 --rollout-length 32",
}
_SCENARIOS: dict[str, str] = {
    "basic": "--total-env-steps 50000",
    "health_gathering": "--total-env-steps 60000",
    "defend_the_center": "--total-env-steps 150000",
}
# The presets scale rewards by hand; the other targets do without.
_VALUES: dict[str, str] = {
    "preset": "",
    "layer_norm": "--layer-norm",
    "symlog": "--import benchmarks/value_targets/symlog.py --reward-scale 1",
    "popart": "--import benchmarks/value_targets/popart.py --reward-scale 1",
}
_EPISODES = 100


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared."""

    kind: ClassVar[str]
    tasks: ClassVar[dict[str, str]] = _SCENARIOS
    names: tuple[str, ...]
    """What is compared."""
    envs: tuple[str, ...]
    """Environments."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    runs: Path = Path("runs/settings")
    """Folder of the run folders."""
    out: Path = Path("settings")
    """Path of the tables, without extension: a Markdown and a JSON file."""

    def flags(self, env: str, name: str) -> list[str]:
        """Return the flags of a training."""
        return [*self.tasks[env].split(), f"--{self.kind}", name]


@dataclass(frozen=True, kw_only=True)
class Memories(Comparison):
    """Compare memories."""

    kind = "memory"
    tasks = _MEMORY_TASKS
    names: tuple[str, ...] = ("none", "lstm", "gru", "mingru", "attention")
    envs: tuple[str, ...] = tuple(_MEMORY_TASKS)


@dataclass(frozen=True, kw_only=True)
class Encoders(Comparison):
    """Compare encoders."""

    kind = "encoder"
    names: tuple[str, ...] = ("nature", "impala", "impoola", "attention")
    envs: tuple[str, ...] = tuple(_SCENARIOS)


@dataclass(frozen=True, kw_only=True)
class Values(Comparison):
    """Compare targets of the critic, and layer normalisation."""

    kind = "values"
    names: tuple[str, ...] = tuple(_VALUES)
    envs: tuple[str, ...] = tuple(_SCENARIOS)

    def flags(self, env: str, name: str) -> list[str]:
        """Return the flags of a training."""
        return [*self.tasks[env].split(), *_VALUES[name].split()]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of one training.

    Attributes:
        score: mean native return of the held-out episodes, with sampled actions.
        curve: seconds and mean return of the last training episodes, after each update.
        env_steps_per_s: of the whole training.
        updates_per_s: updates of the network in a second of updating.
    """

    score: float
    curve: list[tuple[float, float]]
    env_steps_per_s: float
    updates_per_s: float


def train(options: Comparison, env: str, name: str, seed: int) -> Trained:
    """Train and score one name with one seed, unless that has been done."""
    folder = RunFolder(options.runs / env.rpartition(":")[2] / name / f"seed{seed}")
    if not folder.evaluation_file.exists():
        _run(
            *("train.py", env, "--seed", str(seed), "--no-record", "--eval-envs", "none"),
            *("--run-dir", str(folder.path), *options.flags(env, name)),
        )
        _run(
            *("evaluate.py", "score", str(folder.policy_file), "--trust"),
            *("--episodes", str(_EPISODES), "--json", str(folder.evaluation_file)),
        )
    return read(folder)


def _run(program: str, *arguments: str) -> None:
    """Run one of the project's programs, silently.

    Raises:
        CalledProcessError: If it fails.
    """
    print(program, *arguments, file=sys.stderr, flush=True)
    command = [sys.executable, str(_ROOT / program), *arguments]
    subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)


def read(folder: RunFolder) -> Trained:
    """Read what came of a training from its run folder."""
    with (folder.path / "progress.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["rollout/ep_rew_mean"]]
    result = json.loads(folder.evaluation_file.read_text())
    last = rows[-1]
    seconds = float(last["time/time_elapsed"])
    updating = sum(float(r["time/share_update"]) for r in rows) / len(rows) * seconds
    return Trained(
        score=result["scores"]["sampled"]["mean"],
        curve=[(float(r["time/time_elapsed"]), float(r["rollout/ep_rew_mean"])) for r in rows],
        env_steps_per_s=float(last["time/total_timesteps"]) / seconds,
        updates_per_s=len(rows) / updating,
    )


def table(env: str, results: dict[str, list[Trained]]) -> list[str]:
    """Return the rows of a Markdown table of one environment."""
    num_seeds = len(next(iter(results.values())))
    ends = [min(runs[s].curve[-1][0] for runs in results.values()) for s in range(num_seeds)]
    rows = []
    for name, trained in results.items():
        scores = [each.score for each in trained]
        interval = over_seeds(scores) if len(scores) > 1 else None
        at_equal_time = [at(each.curve, end) for each, end in zip(trained, ends, strict=True)]
        rows.append(
            f"| {env.rpartition(':')[2]} | {name} | {mean(scores):,.2f} | "
            + (f"{interval.low:,.2f} to {interval.high:,.2f} | " if interval else "| ")
            + f"{', '.join(f'{score:,.2f}' for score in scores)} | {mean(at_equal_time):,.2f} | "
            f"{mean(each.env_steps_per_s for each in trained):,.0f} | "
            f"{mean(each.updates_per_s for each in trained):,.1f} |"
        )
    return rows


def at(curve: Sequence[tuple[float, float]], seconds: float) -> float:
    """Return the last value of a curve at a time."""
    return [value for time, value in curve if time <= seconds or time == curve[0][0]][-1]


def main() -> None:
    """Train, score, and write the tables."""
    options = tyro.cli(
        Annotated[Memories, tyro.conf.subcommand("memories")]
        | Annotated[Encoders, tyro.conf.subcommand("encoders")]
        | Annotated[Values, tyro.conf.subcommand("values")],
        description=__doc__,
    )
    lines = [
        f"| environment | {options.kind} | mean return | 95 % over new seeds | by seed | "
        "at equal wall time | env steps/s | updates/s |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    data = {}
    for env in options.envs:
        results = {
            name: [train(options, env, name, seed) for seed in options.seeds]
            for name in options.names
        }
        lines += table(env, results)
        data[env] = {
            name: [vars(each) | {"curve": each.curve[::10]} for each in trained]
            for name, trained in results.items()
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    facts = {"git": git_revision(), "hardware": hardware(), "results": data}
    options.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
