r"""Measure how many seconds this project and its peers need to reach a certain return.

    python -m benchmarks.time_to_skill basic --seeds 0 1 2 \
        --sample-factory build/peers/sample-factory/bin/python --sb3 build/peers/sb3/bin/python

One training runs at a time, with the settings that its own project recommends for pixels: ours
with its preset, the peers as described in benchmarks/peers/README.md. The return is the mean native
return of the last training episodes, with sampled actions: the last 100 of ours, the last 50 of a
peer's. Our time is measured from the start of the command, a peer's from when its environments have
started. A peer is stopped after `patience` times the seconds that ours took with the same seed.
Results are merged into those in the JSON file.
"""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro

from storage.provenance import git_revision, hardware

_HERE = Path(__file__).parent
# Returns of a clearly skilled policy that can be reached within minutes.
SKILL = {"basic": 75.0, "health_gathering": 1000.0, "defend_the_center": 4.0}
_EPISODES = 100  # over which the mean of our returns is taken
_POLL_SECONDS = 0.25
Reading = tuple[float, int, float]  # seconds, env steps, mean return


@dataclass(frozen=True, kw_only=True)
class TimeToSkill:
    """What is trained, and the time limits."""

    envs: tyro.conf.Positional[tuple[str, ...]] = tuple(SKILL)
    """Scenarios."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds."""
    sample_factory: Path | None = None
    """Python of the virtual environment with Sample Factory."""
    sb3: Path | None = None
    """Python of the virtual environment with Stable-Baselines3."""
    patience: float = 1.25
    """A peer is stopped after this many times the seconds that our training took."""
    limit: float = 600.0
    """Our training is stopped after this many seconds."""
    json: Path = Path("time_to_skill.json")
    """File of the results; new ones are merged into it."""


def main() -> None:
    """Measure, and print a Markdown table of all results so far."""
    config = tyro.cli(TimeToSkill, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # This ends the training, too.
    results = json.loads(config.json.read_text()) if config.json.exists() else {"runs": []}
    results |= {"machine": hardware(), "git": git_revision(), "skill": SKILL}
    for env in config.envs:
        for seed in config.seeds:
            ours = train_ours(env, seed, config.limit)
            limit = config.patience * ours["seconds"]
            runs = [{"trainer": "doomgrad", **ours}]
            for trainer, python, script in peers(config):
                runs.append({"trainer": trainer, **train_peer(python, script, env, seed, limit)})
            for run in runs:
                run |= {"env": env, "seed": seed}
                print(run, file=sys.stderr, flush=True)
            others = [r for r in results["runs"] if (r["env"], r["seed"]) != (env, seed)]
            results["runs"] = others + runs
            config.json.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results["runs"]))


def peers(config: TimeToSkill) -> Iterator[tuple[str, Path, str]]:
    """Yield name, Python and script with options of each peer that is configured."""
    if config.sample_factory is not None:
        yield "Sample Factory", config.sample_factory, "sample_factory_appo.py --num-envs 32"
    if config.sb3 is not None:
        yield "Stable-Baselines3", config.sb3, "sb3_ppo.py --num-envs 16"


def train_ours(env: str, seed: int, limit: float) -> dict[str, float | bool]:
    """Train with the preset until the return is reached or time is up."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        command = [sys.executable, str(_HERE.parent / "train.py"), env, "--seed", str(seed)]
        with running([*command, "--run-dir", str(run_dir)]) as seconds:

            def read() -> Reading | None:
                file = run_dir / "progress.csv"
                rows = []
                if file.exists():
                    with file.open(newline="") as lines:
                        rows = list(csv.DictReader(lines))
                rows = [row for row in rows if float(row["time/episodes"] or 0) >= _EPISODES]
                if not rows:
                    return None
                steps, mean = rows[-1]["time/total_timesteps"], rows[-1]["rollout/ep_rew_mean"]
                return seconds(), int(float(steps)), float(mean)

            return follow(read, SKILL[env], limit, seconds)


def train_peer(
    python: Path, script: str, env: str, seed: int, limit: float
) -> dict[str, float | bool]:
    """Train a peer until the return is reached or time is up."""
    with tempfile.TemporaryDirectory() as folder:
        curve = Path(folder) / "curve.json"
        name, *options = script.split()
        command = [str(python), str(_HERE / "peers" / name), "--env", env, "--seed", str(seed)]
        # The limit is enforced here: it does not include start-up, so the process may run longer.
        command += [*options, "--minutes", str(limit / 60 + 1), "--curve", str(curve)]
        with running(command) as seconds:

            def read() -> Reading | None:
                try:
                    rows = json.loads(curve.read_text())
                except (FileNotFoundError, json.JSONDecodeError):  # Missing, or half written.
                    return None
                return (rows[-1][0], rows[-1][1], rows[-1][2]) if rows else None

            return follow(read, SKILL[env], limit, seconds)


@contextmanager
def running(command: list[str]) -> Iterator[Callable[[], float]]:
    """Run a command, and end it afterwards.

    Yields:
        A function that returns the seconds since the start, and raises RuntimeError if the command
        has ended.
    """
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        started = time.monotonic()

        def seconds() -> float:
            if process.poll() is not None:
                output.seek(0)
                raise RuntimeError(f"{' '.join(command)} ended:\n{output.read()[-3000:]}")
            return time.monotonic() - started

        try:
            yield seconds
        finally:
            process.terminate()
            process.wait()


def follow(
    read: Callable[[], Reading | None], target: float, limit: float, seconds: Callable[[], float]
) -> dict[str, float | bool]:
    """Wait until a training run has reached a return or its time is up, and return the result."""
    while True:
        reading = read()
        elapsed = reading[0] if reading else 0.0
        if (reading and reading[2] >= target) or elapsed >= limit or seconds() >= limit + 60:
            _, env_steps, mean = reading or (0.0, 0, float("nan"))
            return {
                "reached": mean >= target,
                "seconds": round(elapsed, 1),
                "env_steps": env_steps,
                "mean_return": round(mean, 2),
            }
        time.sleep(_POLL_SECONDS)


def table(runs: list[dict[str, float | bool | str]]) -> str:
    """Return a Markdown table: seconds by seed, or the return that was reached instead."""
    trainers = list(dict.fromkeys(str(run["trainer"]) for run in runs))
    lines = [f"| scenario | return | {' | '.join(trainers)} |"]
    lines.append(f"| --- | --- |{' --- |' * len(trainers)}")
    for env in dict.fromkeys(str(run["env"]) for run in runs):
        cells = []
        for trainer in trainers:
            mine = [run for run in runs if (run["env"], run["trainer"]) == (env, trainer)]
            cells.append(", ".join(map(cell, sorted(mine, key=lambda run: int(run["seed"])))))
        lines.append(f"| {env} | {SKILL[env]:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(run: dict[str, float | bool | str]) -> str:
    """Return the time of one training run, or the return that it reached."""
    if run["reached"]:
        return f"{run['seconds']:.0f} s"
    return f"not in {run['seconds']:.0f} s ({run['mean_return']})"


if __name__ == "__main__":
    main()
