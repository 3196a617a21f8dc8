"""Measure what doing nothing, random actions and a scripted player score on generated maps.

    python -m benchmarks.maps

writes benchmarks/results/maps.json and maps.md: 100 episodes at seeds 0 to 99 of each kind with its
default options, native reward and time limit; frame_skip 4, the scripted player decides in every
frame. The scripted player knows the map: see envs/doom/maps/scripted.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path

import numpy as np

from agents import NoopPlayer, RandomPlayer
from envs import EnvConfig, SharedVectorEnv
from envs.doom.env import DoomEnv
from envs.doom.maps import MAPS, PREFIX
from envs.doom.maps.scripted import ScriptedPlayer, scripted_config
from evaluation.playing import play_episodes, score_episodes
from evaluation.report.markdown import markdown_table
from evaluation.report.tables import with_interval
from evaluation.statistics import Score, summarize
from storage.provenance import git_revision

NUM_ENVS = 4
RESULTS = Path(__file__).parent / "results"


def untrained(env: str, episodes: int) -> dict[str, Score]:
    """Return the scores of doing nothing and of random actions."""
    # These players ignore observations, so the smallest screen is enough.
    config = EnvConfig(env=env, height=8, width=8)
    with contextlib.closing(SharedVectorEnv(config, num_envs=NUM_ENVS)) as envs:
        players = {
            "noop": NoopPlayer(envs.single_action_space),
            "random": RandomPlayer(envs.single_action_space),
        }
        return {
            name: score_episodes(
                list(play_episodes(player, envs, num_episodes=episodes, seed=0, greedy=False))
            )
            for name, player in players.items()
        }


def scripted(env: str, episodes: int) -> Score:
    """Return the score of the scripted player."""
    # The engine's smallest screen, from which the objects in view are read.
    doom = DoomEnv(scripted_config(EnvConfig(env=env, height=60, width=80)))
    with contextlib.closing(doom):
        player = ScriptedPlayer(doom)
        played = [player.play(seed) for seed in range(episodes)]
    returns = np.array([episode["r"] for episode in played])
    return summarize([returns], float(np.mean([episode["l"] for episode in played])))


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=100)
    options = parser.parse_args()
    scores: dict[str, dict[str, Score]] = {}
    for kind in MAPS:
        env = f"{PREFIX}{kind}"
        scores[env] = untrained(env, options.episodes)
        scores[env]["scripted"] = scripted(env, options.episodes)
        print(env, {name: round(s.mean, 3) for name, s in scores[env].items()}, flush=True)
        write(scores, options.episodes)


def write(scores: dict[str, dict[str, Score]], episodes: int) -> None:
    """Write the results so far."""
    content = {
        "episodes": episodes,
        "seeds": [0, episodes - 1],
        "git": git_revision(),
        "scores": {
            env: {name: score.as_dict() for name, score in of_env.items()}
            for env, of_env in scores.items()
        },
    }
    (RESULTS / "maps.json").write_text(json.dumps(content, indent=2) + "\n")
    (RESULTS / "maps.md").write_text(page(scores, episodes))


def page(scores: dict[str, dict[str, Score]], episodes: int) -> str:
    """Return the results as Markdown."""
    columns = ("kind", "no-op", "random", "scripted player", "its env steps (of one frame)")
    rows = [
        [
            f"{env}",
            *(with_interval(s.mean, s.ci_low, s.ci_high) for s in of_env.values()),
            f"{of_env['scripted'].mean_length:,.0f}",
        ]
        for env, of_env in scores.items()
    ]
    return "\n".join(
        [
            "# Generated maps: what untrained players and one that knows the map score",
            "",
            f"`python -m benchmarks.maps --episodes {episodes}`",
            "",
            *markdown_table(columns, rows, text=(0,)),
            "",
            f"Mean native return with its 95 % interval over {episodes} episodes, at seeds 0 to "
            f"{episodes - 1}, each on its own map, with default options. The scripted player walks "
            "along shortest paths over the map's cells and shoots at what it sees; it decides in "
            "every frame, the others in every fourth one.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
