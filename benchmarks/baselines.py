"""Measure the scores of doing nothing and of random actions in every scenario.

    python -m benchmarks.baselines

writes benchmarks/results/baselines.json, from which the `noop` and `random` columns of
envs/doom/scenarios.py are taken: 100 episodes at seeds 0 to 99, frame_skip 4, native reward, skill
and time limit, one choice among the scenario's button combinations (deathmatch: independent
groups).
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path

from agents import NoopPlayer, RandomPlayer
from envs import SCENARIOS, EnvConfig, SharedVectorEnv
from evaluation.playing import play_episodes, score_episodes
from storage.provenance import git_revision

EPISODES = 100
NUM_ENVS = 16  # As in `evaluate.py score`.
RESULTS = Path(__file__).parent / "results" / "baselines.json"


def main() -> None:
    """Measure, and write the results."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    results = {}
    for name in SCENARIOS:
        # These players ignore observations, so the smallest screen is enough.
        config = EnvConfig(env=name, height=8, width=8)
        with contextlib.closing(SharedVectorEnv(config, num_envs=NUM_ENVS)) as envs:
            players = {
                "noop": NoopPlayer(envs.single_action_space),
                "random": RandomPlayer(envs.single_action_space),
            }
            results[name] = {
                player_name: score_episodes(
                    list(play_episodes(player, envs, num_episodes=EPISODES, seed=0, greedy=False))
                ).as_dict()
                for player_name, player in players.items()
            }
        means = {player: round(score["mean"], 3) for player, score in results[name].items()}
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
