"""Training a list of scenarios, agents and seeds, one command after another."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from agents import check_agent
from agents.commandline import UsageError, handling_signals
from envs import canonical_name, folder_name

SCENARIOS = (
    *("basic", "defend_the_center", "health_gathering", "take_cover", "predict_position"),
    "deadly_corridor",
)
"""What is trained unless something else is asked for."""
_TRAIN = Path(__file__).resolve().parent.parent / "train.py"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What is to be trained.

    Attributes:
        folder: run folders are FOLDER/SCENARIO/AGENT-seedN.
        scenarios: worlds.
        agents: who learns.
        seeds: training seeds.
        total_env_steps: how long; None: as long as the preset says.
    """

    folder: Path
    scenarios: tuple[str, ...]
    agents: tuple[str, ...]
    seeds: tuple[int, ...]
    total_env_steps: int | None = None

    def run_dir(self, scenario: str, agent: str, seed: int) -> Path:
        """Give the run folder of one training."""
        return self.folder / folder_name(scenario) / f"{agent}-seed{seed}"

    def command(self, scenario: str, agent: str, seed: int) -> list[str]:
        """Give the arguments of `train.py` for one training."""
        run_dir = str(self.run_dir(scenario, agent, seed))
        arguments = [scenario, "--agent", agent, "--seed", str(seed), "--run-dir", run_dir]
        if self.total_env_steps is not None:
            arguments += ["--total-env-steps", str(self.total_env_steps)]
        return arguments


def train_suite(suite: Suite) -> list[Path]:
    """Train all that is not yet trained, each seed of everything before the next seed.

    A training that was interrupted goes on, one that is complete says so at once.

    Returns:
        The run folders.

    Raises:
        UsageError: If there is no such agent, or a training fails.
        EnvError: If there is no such world.
        KeyboardInterrupt: If a training was interrupted; it is saved.
    """
    for agent in suite.agents:
        check_agent(agent)
    scenarios = [canonical_name(scenario) for scenario in suite.scenarios]
    runs = []
    trainings = dict.fromkeys(product(suite.seeds, scenarios, suite.agents))
    for seed, scenario, agent in trainings:
        arguments = suite.command(scenario, agent, seed)
        print(f"\n$ python train.py {shlex.join(arguments)}", flush=True)
        status = _run(arguments)
        if status:
            raise UsageError(f"training {scenario} with {agent}, seed {seed}, failed: see above")
        runs.append(suite.run_dir(scenario, agent, seed))
    return runs


def _run(arguments: list[str]) -> int:
    """Train in a process of its own, which is what its command line says and nothing else.

    Signals are outlived until it has ended. Ctrl-C reaches all processes of a terminal, SIGTERM
    only the one it is sent to, and is handed on.

    Raises:
        KeyboardInterrupt: If it was interrupted; it has ended in its own time, and is saved.
    """
    received: list[int] = []
    processes: list[subprocess.Popen[bytes]] = []

    def remember(number: int, frame: object) -> None:
        received.append(number)
        if number == signal.SIGTERM:
            for process in processes:
                process.terminate()

    with (
        handling_signals(remember),
        subprocess.Popen([sys.executable, str(_TRAIN), *arguments]) as process,
    ):
        processes.append(process)
        status = process.wait()
    if received or status in (130, 143):
        raise KeyboardInterrupt
    return status
