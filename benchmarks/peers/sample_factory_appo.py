"""Measure Sample Factory's APPO on ViZDoom: env steps a second, or its learning curve.

    python sample_factory_appo.py --env health_gathering --num-envs 16 --num-workers 2
    python sample_factory_appo.py --env basic --minutes 10 --seed 1 --curve curve.json

Run it with the Python of an environment that holds requirements-sample-factory.txt. Scenarios,
networks and hyper-parameters are those of its own `sf_examples.vizdoom`; only the numbers of games
and workers, the mode and the device are ours.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from contained import contain
from sample_factory.algo.runners.runner import AlgoObserver, Runner
from sample_factory.algo.utils.misc import ExperimentStatus
from sample_factory.envs.env_utils import register_env
from sample_factory.train import make_runner
from sf_examples.vizdoom.doom.doom_utils import DoomSpec, doom_env_by_name, make_doom_env_from_spec
from sf_examples.vizdoom.train_vizdoom import parse_vizdoom_cfg, register_vizdoom_models

FRAME_SKIP = 4
BATCH_SIZE = 1024
WARM_UP_SECONDS = 5.0
ROW_SECONDS = 5.0
EPISODES = 50
MODES = {
    "async": {"async_rl": True, "serial_mode": False},
    "sync": {"async_rl": False, "serial_mode": False},
    "serial": {"async_rl": False, "serial_mode": True},
}
# Its health_gathering.cfg has living_reward 0.01 (here 1) and death_penalty 0 (here 100).
NATIVE_SCALE = {"doom_health_gathering": 100.0}
NATIVE_DEATH_PENALTY = {"doom_health_gathering": 100.0}


class NativeReturn(gymnasium.Wrapper):
    """Reports at an episode's end what ViZDoom's own scenario would have paid for it."""

    def __init__(self, env: gymnasium.Env, name: str) -> None:
        super().__init__(env)
        self.scale = NATIVE_SCALE.get(name, 1.0)
        self.death_penalty = NATIVE_DEATH_PENALTY.get(name, 0.0)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; the engine's own total is free of the wrappers' shaping and scaling."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            game = self.unwrapped.game
            native = game.get_total_reward() * self.scale
            native -= self.death_penalty * game.is_player_dead()
            info.setdefault("episode_extra_stats", {})["native_return"] = native
        return obs, reward, terminated, truncated, info


def make_env(
    spec: DoomSpec, name: str, cfg: Any, env_config: Any, render_mode: str | None = None
) -> gymnasium.Env:
    """Make its environment as it does, and have it report native returns."""
    env = make_doom_env_from_spec(spec, name, cfg, env_config, render_mode)
    return NativeReturn(env, spec.name)


class Recorder(AlgoObserver):
    """Notes when how many env steps were trained on, and ends the training in time."""

    def __init__(self, seconds: float | None, minutes: float | None, curve: Path | None) -> None:
        self.seconds = seconds
        self.minutes = minutes
        self.curve = curve
        self.marks: list[tuple[float, int]] = []  # (time, env steps) after the warm-up.
        self.rows: list[tuple[float, int, float]] = []
        self.first: float | None = None

    def on_start(self, runner: Runner) -> None:
        """Start the curve's clock, as its processes and engines start."""
        self.started = time.perf_counter()

    def on_training_step(self, runner: Runner, training_iteration_since_resume: int) -> None:
        """Note, write and stop, after each batch."""
        now = time.perf_counter()
        self.first = self.first or now
        env_steps = training_iteration_since_resume * BATCH_SIZE
        if self.minutes:
            self.marks = [(self.started, 0), (now, env_steps)]
            elapsed = now - self.started
            returns = runner.policy_avg_stats.get("native_return", [[]])[0]
            due = not self.rows or elapsed - self.rows[-1][0] >= ROW_SECONDS
            finished = elapsed >= 60 * self.minutes
            if len(returns) == EPISODES and (due or finished):
                self.rows.append((round(elapsed, 2), env_steps, float(np.mean(returns))))
                if self.curve:
                    self.curve.write_text(json.dumps(self.rows) + "\n")
        else:
            if now - self.first >= WARM_UP_SECONDS:
                self.marks.append((now, env_steps))
            finished = now - self.first >= WARM_UP_SECONDS + self.seconds
        if finished:
            runner.cfg.train_for_env_steps = -1

    @property
    def env_steps_per_s(self) -> float:
        """Return the rate between the first mark and the last."""
        (began, before), (ended, after) = self.marks[0], self.marks[-1]
        return (after - before) / (ended - began)


def main() -> None:
    """Train for a while and print the figures."""
    args = parse()
    scratch = contain()
    name = f"doom_{args.env}"
    settings = {
        **{"num_workers": args.num_workers, "num_envs_per_worker": args.num_envs_per_worker},
        **{"worker_num_splits": 2 if args.num_envs_per_worker % 2 == 0 else 1, **MODES[args.mode]},
        **{"rollout": 32, "batch_size": BATCH_SIZE, "num_epochs": 1, "device": args.device},
        **{"res_w": 128, "res_h": 72, "env_frameskip": FRAME_SKIP, "seed": args.seed},
        **{"encoder_conv_architecture": "convnet_simple", "rnn_type": "gru", "rnn_size": 512},
    }
    run = {"env": name, "experiment": "peer", "train_dir": str(scratch), "stats_avg": EPISODES}
    spec = doom_env_by_name(name)
    register_env(name, functools.partial(make_env, spec))
    register_vizdoom_models()
    _, runner = make_runner(parse_vizdoom_cfg([f"--{k}={v}" for k, v in (settings | run).items()]))
    recorder = Recorder(args.seconds, args.minutes, args.curve)
    runner.register_observer(recorder)
    status = runner.init()
    if status == ExperimentStatus.SUCCESS:
        status = runner.run()
    if status != ExperimentStatus.SUCCESS:
        raise SystemExit(f"Sample Factory ended with status {status}.")
    result = {
        **{"peer": "sample-factory", "version": version("sample-factory"), "env": args.env},
        **{"num_envs": args.num_envs, "settings": settings},
        "env_steps_per_s": round(recorder.env_steps_per_s, 1),
    }
    print(json.dumps(result), flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--env",
        default="health_gathering",
        help="health_gathering, defend_the_center, basic or another of its doom_* scenarios",
    )
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--mode", choices=MODES, default="async")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long speed is measured")
    parser.add_argument("--minutes", type=float, help="train this long instead, for a curve")
    parser.add_argument("--curve", type=Path, help="where to write [seconds, env steps, return]")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.num_envs_per_worker, rest = divmod(args.num_envs, args.num_workers)
    if rest or not args.num_envs_per_worker:
        parser.error("--num-envs must be a multiple of --num-workers")
    if args.curve:
        args.curve = args.curve.resolve()
    return args


if __name__ == "__main__":
    main()
