"""Train from Python with a callback, which logs a value and stops at a target.

    python examples/callbacks.py --target 50

It is the training of `python train.py basic`, with its preset, logs and checkpoints.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from agents.collector import Collected
from evaluation.statistics import Score
from storage.run_folder import RunFolder
from train import train
from training.callbacks import Callback
from training.config import default_config, with_values
from training.signals import until_interrupted
from training.training import Training


class StopAtTarget(Callback):
    """Logs the best return of each rollout, and stops when an evaluation reaches a target."""

    def __init__(self, target: float) -> None:
        self.target = target

    def on_update(
        self, training: Training, collected: Collected, metrics: Mapping[str, float]
    ) -> None:
        """Log the best return of a rollout."""
        returns = [episode.statistics["r"] for episode in collected.episodes]
        if returns:
            training.logger.record("rollout/best_return", max(returns))

    def on_evaluation(self, training: Training, score: Score) -> None:
        """Stop if the target is reached."""
        if score.mean >= self.target:
            print(f"{score.mean:.1f} at {training.progress.env_steps:,} env steps: that is enough")
            training.stop()


parser = argparse.ArgumentParser(description="Train basic until an evaluation reaches a target.")
parser.add_argument("--target", type=float, default=50.0, help="mean return at which to stop")
parser.add_argument("--total-env-steps", type=int, default=50_000, help="env steps at most")
parser.add_argument("--run-dir", type=Path, default=Path("runs/callbacks"), help="run folder")
args = parser.parse_args()

config = with_values(
    default_config("basic"),
    {"total_env_steps": args.total_env_steps, "eval_every": args.total_env_steps // 10},
)
with until_interrupted() as signals:
    train(config, RunFolder(args.run_dir), signals, callbacks=[StopAtTarget(args.target)])
