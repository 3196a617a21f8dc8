"""The policies that come with the project are small, scored, and can be used at once."""

import json
import os
from pathlib import Path

import pytest

import evaluate
from envs.doom.cfg import game_spec
from envs.doom.senses import has_openal
from envs.registry import folder_name
from evaluation.entries import ZOO, find_entries
from evaluation.protocol import Protocol, play, vector_env
from evaluation.replay import terminal
from storage.policy_file import load_policy

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.parent.name for path in ZOO.glob("*/policy.safetensors"))


def test_it_holds_the_scenarios_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert NAMES
    for name in NAMES:
        env = load_policy(ZOO / name / "policy.safetensors").env["env"]
        assert f"| [`{env}`](zoo/{name}/README.md) |" in readme


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_is_small_and_its_card_has_its_score(name):
    path = ZOO / name / "policy.safetensors"
    assert path.stat().st_size < 5_000_000
    assert path.with_name("replay.gif").stat().st_size < 500_000
    compared = json.loads((ZOO / name / "compare.json").read_text())
    training = json.loads((ZOO / name / "training.json").read_text())
    card = (ZOO / name / "README.md").read_text()
    about = load_policy(path).about
    env = compared["env"]
    assert env == load_policy(path).env["env"]
    assert folder_name(env) == name
    assert compared["protocol"]["seeds"] == [0, 99]
    assert training["config"]["seed"] == about.seed
    names = [result["name"] for result in compared["results"]]
    baselines = ["random", "noop"] if game_spec(env) else ["random"]
    assert sorted(names) == sorted([f"zoo/{name} (sampled)", f"zoo/{name} (greedy)", *baselines])
    for result in compared["results"]:
        assert f"| {result['name']} | {result['mean']:,.2f} |" in card or result["mean"] >= 1000
    assert f"{about.env_steps:,} env steps" in card
    assert training["hardware"]["cpu"] in card


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_scores_as_its_card_says(name):
    (entry,) = find_entries([f"zoo/{name}"], trust=False)
    (contestant,) = entry.contestants
    if contestant.config.sound and not has_openal():
        pytest.skip("OpenAL is not installed (package libopenal1)")
    compared = json.loads((ZOO / name / "compare.json").read_text())
    sampled = next(r for r in compared["results"] if r["mode"] == "sampled")
    protocol = Protocol(episodes=1, num_envs=1)
    with vector_env(contestant.config, 1, 1) as envs:
        episodes = play(contestant.file, envs, protocol)
    # Sums of floats differ between machines, and with them an occasional action.
    low, high = sampled["min"], sampled["max"]
    assert all(low <= episode.episode_return <= high for episode in episodes)


def test_one_is_watched_from_anywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    monkeypatch.setattr(terminal.os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    options = ["--terminal", "--episodes", "1", "--seed", "3", "--speed", "1000"]
    assert evaluate.main(["watch", "zoo/basic", *options]) == 0
    assert "zoo/basic: episode with seed 3: return" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
