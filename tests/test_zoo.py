"""The policies that come with the project: small, scored, and playing right after installation."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agents.checkpoint import load_policy
from evaluation.entries import ZOO, find_entries
from evaluation.protocol import Protocol, play, vector_env

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.parent.name for path in ZOO.glob("*/policy.safetensors"))


def test_it_holds_the_scenarios_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert NAMES
    for name in NAMES:
        assert f"| [`{name}`](zoo/{name}/README.md) |" in readme


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_is_small_and_its_card_tells_its_score(name):
    path = ZOO / name / "policy.safetensors"
    assert path.stat().st_size < 5_000_000
    compared = json.loads((ZOO / name / "compare.json").read_text())
    training = json.loads((ZOO / name / "training.json").read_text())
    card = (ZOO / name / "README.md").read_text()
    about = load_policy(path).about
    assert compared["env"] == load_policy(path).env["env"] == name
    assert compared["protocol"]["seeds"] == [0, 99]
    assert training["config"]["seed"] == about.seed
    names = [result["name"] for result in compared["results"]]
    assert sorted(names) == sorted(
        [f"zoo/{name} (sampled)", f"zoo/{name} (greedy)", "random", "noop"]
    )
    for result in compared["results"]:
        assert f"| {result['name']} | {result['mean']:,.2f} |" in card or result["mean"] >= 1000
    assert f"{about.env_steps:,} env steps" in card
    assert training["hardware"]["cpu"] in card


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_plays_as_its_card_says(name):
    (entry,) = find_entries([f"zoo/{name}"], trust=False)
    (contestant,) = entry.contestants
    compared = json.loads((ZOO / name / "compare.json").read_text())
    sampled = next(r for r in compared["results"] if r["mode"] == "sampled")
    protocol = Protocol(episodes=2, num_envs=2)
    with vector_env(contestant.config, 2, 2) as envs:
        episodes = play(contestant.file, envs, protocol)
    # Sums of floats differ between machines, and with them, once in a while, an action.
    low, high = sampled["min"], sampled["max"]
    assert all(low <= episode.episode_return <= high for episode in episodes)


def test_one_is_watched_from_anywhere(tmp_path):
    command = [sys.executable, str(ROOT / "evaluate.py"), "watch", "zoo/basic", "--terminal"]
    options = ["--episodes", "1", "--seed", "3", "--speed", "100"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert "zoo/basic: episode with seed 3: return" in done.stdout
    assert list(tmp_path.iterdir()) == []
