"""Tests of `evaluation.replay.chosen`."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.replay import chosen
from evaluation.replay.chosen import chosen_episodes, story_of
from storage.recording import load_recording, save_recording


@pytest.mark.parametrize(
    ("lengths", "expected"), [([2, 3, 30, 99], 2), ([30], 0), ([2, 9, 3, 4, 5, 6, 7, 8, 2, 2], 1)]
)
def test_with_a_policy_the_first_long_episode_is_shown_else_the_longest(
    cartpole_run, monkeypatch, lengths, expected
):
    def play_new(file, run, protocol, *, greedy, trust):
        steps = lengths[protocol.seed]
        episode = SimpleNamespace(
            seed=protocol.seed, rewards=np.zeros(steps), episode_return=float(-steps)
        )
        return [SimpleNamespace(episode=episode)]

    monkeypatch.setattr(chosen, "play_new", play_new)
    policy = cartpole_run / "policy.safetensors"
    (shown,), _ = chosen_episodes(policy, "highlight", 1, trust=False)
    assert shown.episode.seed == expected


@pytest.mark.parametrize("wanted", ["best", "nope"])
def test_a_policy_file_has_no_episodes_to_choose_from(cartpole_run, wanted):
    message = rf"^--episode {wanted}: .* has no recorded episodes; give a seed, as in --episode 17$"
    with pytest.raises(EvaluationError, match=message):
        chosen_episodes(cartpole_run / "policy.safetensors", wanted, 1, trust=False)


@pytest.fixture
def run(cartpole_run, tmp_path):
    """A run folder whose recordings are those of a long training."""
    recording = load_recording(cartpole_run / "episodes" / "training-first.npz")
    names = ["training-first", "training-best", "training-worst", "training-0000000064"]
    names += [f"evaluation-{1000 * i:010d}-{j:03d}" for i in range(1, 6) for j in (0, 1)]
    for number, name in enumerate(names):
        episode = replace(recording.episode, statistics={"r": float(number)})
        save_recording(tmp_path / "episodes" / f"{name}.npz", replace(recording, episode=episode))
    return tmp_path


def test_a_story_is_told_from_the_first_episode_to_the_best(run):
    story = story_of(run, trust=False)
    assert [(caption, shown.episode.episode_return) for caption, shown in story] == [
        ("first episode of the training that ended", 0),
        ("after 1,000 env steps", 5),  # The better one of two.
        ("after 3,000 env steps", 9),
        ("after 5,000 env steps", 13),
        ("worst episode of the training", 2),
        ("best episode of the training", 1),
    ]


def test_a_run_without_recordings_has_no_story(tmp_path):
    with pytest.raises(EvaluationError, match="holds no recorded episodes; record some"):
        story_of(tmp_path, trust=False)
