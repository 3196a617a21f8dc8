"""Measure Stable-Baselines3's PPO on ViZDoom: env steps a second, or its learning curve.

    python sb3_ppo.py --env health_gathering --num-envs 16
    python sb3_ppo.py --env basic --minutes 10 --seed 1 --curve curve.json

Run it with the Python of an environment that holds requirements-sb3.txt. Speed is measured with
one epoch, as the other trainers have; curves use the hyper-parameters that RL Baselines3 Zoo has
for games seen as pixels (its `atari` entry for PPO), with rewards normalised by `VecNormalize`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import gymnasium
import numpy as np
import vizdoom
from contained import contain
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

FRAME_SKIP = 4
ROW_SECONDS = 5.0
EPISODES = 50
SPEED = {"n_steps": 128, "batch_size": 256, "n_epochs": 1}
# rl-baselines3-zoo, hyperparams/ppo.yml, `atari`; not annealed, because runs are limited by time.
LEARNING = {
    **{"n_steps": 128, "batch_size": 256, "n_epochs": 4, "learning_rate": 2.5e-4},
    **{"clip_range": 0.1, "vf_coef": 0.5, "ent_coef": 0.01},
}
EXCLUSIVE = ({"TURN_LEFT", "TURN_RIGHT"}, {"MOVE_LEFT", "MOVE_RIGHT"})


class Doom(gymnasium.Env):
    """A scenario of ViZDoom as its cfg defines it: 72x128 colour, one choice of button presses."""

    def __init__(self, scenario: str, seed: int) -> None:
        self.game = vizdoom.DoomGame()
        self.game.load_config(str(Path(vizdoom.scenarios_path) / f"{scenario}.cfg"))
        self.game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
        self.game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        self.game.set_window_visible(False)
        self.game.set_seed(seed)
        self.game.init()
        names = [button.name for button in self.game.get_available_buttons()]
        presses = itertools.product((0, 1), repeat=len(names))
        self.presses = [
            list(press)
            for press in presses
            if not any({n for n, p in zip(names, press, strict=True) if p} >= x for x in EXCLUSIVE)
        ]
        self.action_space = spaces.Discrete(len(self.presses))
        self.observation_space = spaces.Box(0, 255, (72, 128, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.game.new_episode()
        return self.look(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold the buttons for four tics; the reward is the scenario's own."""
        reward = self.game.make_action(self.presses[int(action)], FRAME_SKIP)
        ended = self.game.is_episode_finished()
        timeout = ended and self.game.is_episode_timeout_reached()
        if not ended:
            self.look()  # At an end the engine shows nothing: the last frame stands.
        return self.frame, reward, ended and not timeout, timeout, {}

    def look(self) -> np.ndarray:
        """Fetch the screen, (72, 128, 3) uint8, RGB."""
        screen = self.game.get_state().screen_buffer
        self.frame = cv2.resize(screen, (128, 72), interpolation=cv2.INTER_NEAREST)
        return self.frame

    def close(self) -> None:
        """End the engine."""
        self.game.close()


def make_env(scenario: str, seed: int) -> gymnasium.Env:
    """Make a game that reports its native return."""
    cv2.setNumThreads(1)
    return Monitor(Doom(scenario, seed))


class Recorder(BaseCallback):
    """Notes when how many env steps were trained on, and ends the training in time."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.args = args
        self.marks: list[tuple[float, int]] = []  # (time, env steps) at iterations' beginnings.
        self.rows: list[tuple[float, int, float]] = []
        self.finished = False

    def _on_training_start(self) -> None:
        self.started = time.perf_counter()

    def _on_rollout_start(self) -> None:
        """The first iteration is the warm-up: what is timed is whole iterations after it."""
        if self.num_timesteps and not self.args.minutes:
            self.marks.append((time.perf_counter(), self.num_timesteps))
            self.finished = self.marks[-1][0] - self.marks[0][0] >= self.args.seconds

    def _on_step(self) -> bool:
        if self.args.minutes:
            now = time.perf_counter()
            self.marks = [(self.started, 0), (now, self.num_timesteps)]
            elapsed = now - self.started
            self.finished = elapsed >= 60 * self.args.minutes
            episodes = self.model.ep_info_buffer
            due = not self.rows or elapsed - self.rows[-1][0] >= ROW_SECONDS
            if len(episodes) == EPISODES and (due or self.finished):
                mean = float(np.mean([episode["r"] for episode in episodes]))
                self.rows.append((round(elapsed, 2), self.num_timesteps, mean))
                if self.args.curve:
                    self.args.curve.write_text(json.dumps(self.rows) + "\n")
        return not self.finished

    @property
    def env_steps_per_s(self) -> float:
        """Return the rate between the first mark and the last."""
        (began, before), (ended, after) = self.marks[0], self.marks[-1]
        return (after - before) / (ended - began)


def main() -> None:
    """Train for a while and print the figures."""
    args = parse()
    contain()
    settings = LEARNING if args.minutes else SPEED
    makers = [partial(make_env, args.env, 1000 * args.seed + i) for i in range(args.num_envs)]
    envs: Any = SubprocVecEnv(makers)
    if args.minutes:
        envs = VecNormalize(envs, norm_obs=False, norm_reward=True)
    agent = PPO(
        "CnnPolicy",
        envs,
        seed=args.seed,
        device=args.device,
        stats_window_size=EPISODES,
        **settings,
    )
    recorder = Recorder(args)
    agent.learn(total_timesteps=10**9, callback=recorder)
    envs.close()
    result = {
        **{"peer": "stable-baselines3", "version": version("stable-baselines3"), "env": args.env},
        **{"num_envs": args.num_envs, "settings": settings},
        "env_steps_per_s": round(recorder.env_steps_per_s, 1),
    }
    print(json.dumps(result), flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="health_gathering", help="a scenario that ViZDoom ships")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long speed is measured")
    parser.add_argument("--minutes", type=float, help="train this long instead, for a curve")
    parser.add_argument("--curve", type=Path, help="where to write [seconds, env steps, return]")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.curve:
        args.curve = args.curve.resolve()
    return args


if __name__ == "__main__":
    main()
