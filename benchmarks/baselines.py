"""Measure what doing nothing and acting at random score on every scenario.

    python benchmarks/baselines.py

writes benchmarks/results/baselines.json, from which the `noop` and `random` columns of
envs/scenarios.py are taken: 100 episodes at seeds 0 to 99, frame_skip 4, native reward, skill and
time limit, one choice among the scenario's button combinations (deathmatch: independent groups).
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from agents import NoopPlayer, RandomPlayer
from agents.run import git_revision
from envs import SCENARIOS, EnvConfig, SharedVectorEnv
from evaluation.play import play_episodes, score_episodes

EPISODES = 100
NUM_ENVS = 16  # As `evaluate.py score` plays: who acts when decides what is drawn.
RESULTS = Path(__file__).parent / "results" / "baselines.json"


def main() -> None:
    """Measure and write."""
    results = {}
    for name in SCENARIOS:
        # Nobody looks, so the smallest screen will do.
        config = EnvConfig(env=name, height=8, width=8)
        with contextlib.closing(SharedVectorEnv(config, num_envs=NUM_ENVS)) as envs:
            players = {
                "noop": NoopPlayer(envs.single_action_space),
                "random": RandomPlayer(envs.single_action_space),
            }
            results[name] = {
                who: score_episodes(
                    list(play_episodes(player, envs, num_episodes=EPISODES, seed=0, greedy=False))
                ).as_dict()
                for who, player in players.items()
            }
        means = {who: round(score["mean"], 3) for who, score in results[name].items()}
        print(name, means, flush=True)
    content = {
        "episodes": EPISODES,
        "num_envs": NUM_ENVS,
        "seeds": [0, EPISODES - 1],
        "git": git_revision(),
    }
    RESULTS.write_text(json.dumps(content | {"scores": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
