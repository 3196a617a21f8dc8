"""Compare what is learned, and how fast, with other memories, encoders, objectives and the like.

    nice -n 5 python -m benchmarks.settings memories --envs tests.agents.toy:MaskedCartPole-v1
    nice -n 5 python -m benchmarks.settings encoders --envs basic defend_the_center
    nice -n 5 python -m benchmarks.settings objectives --envs basic --names none labels pretrained
    nice -n 5 python -m benchmarks.settings senses
    nice -n 5 python -m benchmarks.settings values
    nice -n 5 python -m benchmarks.settings precision
    nice -n 5 python -m benchmarks.settings ranks

Each name is trained with otherwise the same settings and seeds, one training at a time, and its
last policy plays held-out episodes. A training that is there already is not repeated, so the
command can be interrupted. Speeds depend on what else the machine does: compare those of one table
only. The return at equal wall time is that of the last training episodes at the time when the
fastest training of the same seed had ended. Env steps and seconds to a return are those at which
the mean of the last 100 training episodes first reaches it; a training that never does counts with
its whole length, which is less than it would need.
`evaluate.py plot "runs/settings/basic/*"` draws the curves.
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
from typing import Annotated, Any, ClassVar

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
    "MiniGrid-MemoryS7-v0": "--total-env-steps 600000",
    "MiniGrid-MemoryS11-v0": "--total-env-steps 300000",
    # The message that names the monster to shoot is there for one env step.
    "basic_notifications": "--total-env-steps 250000",
}
_SCENARIOS: dict[str, str] = {
    "basic": "--total-env-steps 50000",
    "health_gathering": "--total-env-steps 60000",
    "defend_the_center": "--total-env-steps 150000",
}
_LEARNING_TASKS: dict[str, str] = {
    "basic": "--total-env-steps 50000",
    "take_cover": "--total-env-steps 150000",
    "predict_position": "--total-env-steps 200000",
    "my_way_home": "--total-env-steps 250000",
}
# Weights of objectives other than the defaults, found with seed 100: in predict_position, the
# gradient of the critic's loss has a norm of 5 to 10, beside which a weight of 1 is little.
_WEIGHTS: dict[tuple[str, str], str] = {("predict_position", "labels"): "--labels.coef 10"}
_GOALS = {"basic": 75.0, "take_cover": 400.0, "predict_position": 0.2, "my_way_home": 0.5}
_PRETRAINED = ("pretrained", "frozen")  # The encoder goes on learning, or stays as it is.
# Scenarios whose task cannot be seen, and the flags that turn off sound or messages.
_SENSES: dict[str, str] = {
    "basic_audio": "--total-env-steps 60000",
    "basic_notifications": "--total-env-steps 250000",
}
_WITHOUT = {"basic_audio": "--no-sound", "basic_notifications": "--no-notifications"}
# The presets scale rewards by hand; the other targets do without.
_VALUES: dict[str, str] = {
    "preset": "",
    "layer_norm": "--layer-norm",
    "symlog": "--import benchmarks/value_targets/symlog.py --reward-scale 1",
    "popart": "--import benchmarks/value_targets/popart.py --reward-scale 1",
}
# Ranks have half of the environments, and half of each minibatch, which leaves as many steps of the
# optimiser.
_HALF = "--num-envs 8 --minibatch-size 128"
_RANKS: dict[str, str] = {
    "alone": "",
    "gradients": _HALF,
    "weights-1": f"{_HALF} --sync-every 1",
    "weights-4": f"{_HALF} --sync-every 4",
    "weights-16": f"{_HALF} --sync-every 16",
}
_EPISODES = 100
_MEAN_OVER = 100  # Training episodes; a mean over fewer does not count as reached.
Point = tuple[float, float, float, float]  # seconds, env steps, mean return, episodes
_COLUMNS = (
    "time/time_elapsed",
    "time/total_timesteps",
    "rollout/ep_rew_mean",
    "time/episodes",
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared."""

    kind: ClassVar[str]
    tasks: ClassVar[dict[str, str]] = _SCENARIOS
    goals: ClassVar[dict[str, float]] = {}  # Returns to which env steps and seconds are counted.
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

    def prepare(self, env: str, name: str) -> None:
        """Make what a training starts with, unless it is there."""

    def num_ranks(self, name: str) -> int:
        """Return the number of ranks that train together."""
        return 1


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
    tasks = _SCENARIOS | {"defend_the_center": "--total-env-steps 60000"}
    names: tuple[str, ...] = ("nature", "impala", "impoola", "attention")
    envs: tuple[str, ...] = tuple(_SCENARIOS)

    def flags(self, env: str, name: str) -> list[str]:
        """Return the flags of a training; residual networks are as narrow as Doom's Nature CNN."""
        narrow = ["--impala-channels", "8", "16", "16"] if name in ("impala", "impoola") else []
        return [*super().flags(env, name), *narrow]


@dataclass(frozen=True, kw_only=True)
class Objectives(Comparison):
    """Compare objectives, and encoders that know what is on the screen before they start."""

    kind = "objectives"
    tasks = _LEARNING_TASKS
    goals = _GOALS
    names: tuple[str, ...] = (
        *("none", "plain", *_PRETRAINED),
        *("depth", "labels", "variables", "next_latent", "next_frame"),
        *("contrastive", "masked", "pixel_control", "rnd"),
    )
    envs: tuple[str, ...] = ("basic", "predict_position", "my_way_home")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    def flags(self, env: str, name: str) -> list[str]:
        """Return the flags of a training."""
        source = ["--perception-from", str(self._seen(env).path)]
        chosen = {
            "none": [],
            "plain": ["--no-normalize-obs"],
            "pretrained": source,
            "frozen": [*source, "--encoder-learning-rate", "0"],
        }.get(name, ["--objectives", name, *_WEIGHTS.get((env, name), "").split()])
        return [*self.tasks[env].split(), *chosen]

    def prepare(self, env: str, name: str) -> None:
        """Train the encoder on objects."""
        if name in _PRETRAINED:
            folder = str(self._seen(env).path)
            run_program("train.py", "see:objects", "--like", env, "--run-dir", folder)

    def _seen(self, env: str) -> RunFolder:
        return RunFolder(self.runs.absolute() / "see_objects" / env)


@dataclass(frozen=True, kw_only=True)
class Senses(Comparison):
    """Compare policies that hear or read with policies that only see."""

    kind = "senses"
    tasks = _SENSES
    names: tuple[str, ...] = ("all", "sight")
    envs: tuple[str, ...] = tuple(_SENSES)

    def flags(self, env: str, name: str) -> list[str]:
        """Return the flags of a training."""
        return [*self.tasks[env].split(), *([_WITHOUT[env]] if name == "sight" else [])]


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
class Precisions(Comparison):
    """Compare precisions of image encoders and memory."""

    kind = "precision"
    names: tuple[str, ...] = ("float32", "bfloat16")
    envs: tuple[str, ...] = ("basic", "health_gathering")


@dataclass(frozen=True, kw_only=True)
class RankSettings(Comparison):
    """Compare one rank with two that average gradients, or weights every so many updates."""

    kind = "ranks"
    names: tuple[str, ...] = tuple(_RANKS)
    envs: tuple[str, ...] = ("basic",)

    def flags(self, env: str, name: str) -> list[str]:
        """Return the flags of a training."""
        return [*self.tasks[env].split(), *_RANKS[name].split()]

    def num_ranks(self, name: str) -> int:
        """Return the number of ranks that train together."""
        return 2 if _RANKS[name] else 1


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of one training.

    Attributes:
        score: mean native return of the held-out episodes, with sampled actions.
        curve: seconds, env steps, mean return of the last training episodes, and episodes so far,
            after each update.
        env_steps_per_s: of the whole training.
        updates_per_s: updates of the network in a second of updating.
    """

    score: float
    curve: list[Point]
    env_steps_per_s: float
    updates_per_s: float

    def reached(self, goal: float) -> tuple[bool, float, float]:
        """Return whether a return was reached, and seconds and env steps to it or to the end."""
        for seconds, env_steps, value, episodes in self.curve:
            if value >= goal and episodes >= _MEAN_OVER:
                return True, seconds, env_steps
        return False, *self.curve[-1][:2]


def train(options: Comparison, env: str, name: str, seed: int) -> Trained:
    """Train and score one name with one seed, unless that has been done."""
    folder = RunFolder(options.runs / env.rpartition(":")[2] / f"{name}-seed{seed}")
    if not folder.evaluation_file.exists():
        options.prepare(env, name)
        run_program(
            *("train.py", env, "--seed", str(seed), "--no-record", "--eval-envs", "none"),
            *("--run-dir", str(folder.path), *options.flags(env, name)),
            ranks=options.num_ranks(name),
        )
        run_program(
            *("evaluate.py", "score", str(folder.policy_file), "--trust"),
            *("--episodes", str(_EPISODES), "--json", str(folder.evaluation_file)),
        )
    return read(folder)


def run_program(program: str, *arguments: str, ranks: int = 1) -> None:
    """Run one of the project's programs, silently.

    Args:
        program: its file.
        arguments: its arguments.
        ranks: more than 1: so many processes under torchrun.

    Raises:
        CalledProcessError: If it fails.
    """
    print(program, *arguments, file=sys.stderr, flush=True)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    launcher = [sys.executable, *(torchrun if ranks > 1 else [])]
    command = [*launcher, str(_ROOT / program), *arguments]
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
        curve=[point(row) for row in rows],
        env_steps_per_s=float(last["time/total_timesteps"]) / seconds,
        updates_per_s=len(rows) / updating,
    )


def point(row: dict[str, str]) -> Point:
    """Return a point of the curve from a row of progress.csv."""
    seconds, env_steps, value, episodes = (float(row[column]) for column in _COLUMNS)
    return seconds, env_steps, value, episodes


def table(env: str, results: dict[str, list[Trained]], goal: float | None) -> list[str]:
    """Return the rows of a Markdown table of one environment."""
    num_seeds = len(next(iter(results.values())))
    ends = [min(runs[s].curve[-1][0] for runs in results.values()) for s in range(num_seeds)]
    rows = []
    for name, trained in results.items():
        scores = [each.score for each in trained]
        at_equal_time = [at(each.curve, end) for each, end in zip(trained, ends, strict=True)]
        cells = [
            *(env.rpartition(":")[2], name, *with_interval(scores, ".2f")),
            ", ".join(f"{score:,.2f}" for score in scores),
            f"{mean(at_equal_time):,.2f}",
            f"{mean(each.env_steps_per_s for each in trained):,.0f}",
            f"{mean(each.updates_per_s for each in trained):,.1f}",
        ]
        if goal is not None:
            found = [each.reached(goal) for each in trained]
            cells.append(f"{sum(there for there, *_ in found)} of {num_seeds}")
            cells += with_interval([env_steps for *_, env_steps in found], ".0f")
            cells += with_interval([seconds for _, seconds, _ in found], ".0f")
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def with_interval(values: list[float], shown: str) -> tuple[str, str]:
    """Return the cells of a mean and of its 95 % interval over new seeds."""
    if len(values) == 1:
        return f"{values[0]:,{shown}}", ""
    interval = over_seeds(values)
    return f"{mean(values):,{shown}}", f"{interval.low:,{shown}} to {interval.high:,{shown}}"


def at(curve: Sequence[Point], seconds: float) -> float:
    """Return the last mean return of a curve at a time."""
    return [value for time, _, value, _ in curve if time <= seconds or time == curve[0][0]][-1]


def main() -> None:
    """Train, score, and write the tables."""
    options = tyro.cli(
        Annotated[Memories, tyro.conf.subcommand("memories")]
        | Annotated[Encoders, tyro.conf.subcommand("encoders")]
        | Annotated[Objectives, tyro.conf.subcommand("objectives")]
        | Annotated[Senses, tyro.conf.subcommand("senses")]
        | Annotated[Values, tyro.conf.subcommand("values")]
        | Annotated[Precisions, tyro.conf.subcommand("precision")]
        | Annotated[RankSettings, tyro.conf.subcommand("ranks")],
        description=__doc__,
    )
    columns = [
        *("environment", options.kind, "mean return", "95 % over new seeds", "by seed"),
        *("at equal wall time", "env steps/s", "updates/s"),
    ]
    if options.goals:
        columns += ["reached", "env steps to it", "95 %", "seconds to it", "95 %"]
    lines = [
        f"| {' | '.join(columns)} |",
        f"| {' | '.join('---' if i in (0, 1, 4) else '---:' for i in range(len(columns)))} |",
    ]
    data = {}
    for env in options.envs:
        results = {
            name: [train(options, env, name, seed) for seed in options.seeds]
            for name in options.names
        }
        lines += table(env, results, options.goals.get(env))
        data[env] = {
            name: [vars(each) | {"curve": each.curve[::10]} for each in trained]
            for name, trained in results.items()
        }
    write_results(options.out, lines, data)


def write_results(out: Path, lines: Sequence[str], data: Any) -> None:
    """Write and print a table, and write the data that it is of.

    Args:
        out: path of both files, without extension.
        lines: the table, in Markdown.
        data: what can be written as JSON.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    facts = {"git": git_revision(), "hardware": hardware(), "results": data}
    out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
