"""Tests of `training.guard`."""

from __future__ import annotations

import errno

import pytest
import torch
from safetensors import safe_open

from agents.agent import NotFiniteError
from agents.collector import Collected
from agents.distributed import Averaging
from storage.run_folder import RunFolder
from tests.agents.synthetic import make_policy, make_rollout
from training.errors import TrainingError
from training.guard import GuardedUpdate, continuing_without_disk
from training.progress import Progress


class Agent:
    """Updates as it is told: `.` is finite, `x` is not."""

    averaging = Averaging()

    def __init__(self, outcomes):
        self.outcomes = list(outcomes)
        self.versions = []

    def update(self, rollout, *, version):
        self.versions.append(version)
        if self.outcomes.pop(0) == "x":
            raise NotFiniteError("rewards of the rollout are not finite")
        return {"loss": 1.0}


@pytest.fixture
def guarded(tmp_path):
    """Return a function that updates with some outcomes; it returns what came of each update."""
    policy = make_policy()
    collected = Collected(make_rollout(policy, 4, 2), [], 0, version=3)

    def update_all(outcomes, say=lambda text: None):
        progress = Progress()
        agent = Agent(outcomes)
        update = GuardedUpdate(agent, RunFolder(tmp_path), progress, say)
        metrics = [update(collected) for _ in outcomes]
        assert agent.versions == [3] * len(outcomes)
        return metrics, progress.skipped_updates

    return update_all


def test_updates_that_are_not_finite_are_skipped_and_reported_once(guarded):
    said = []
    metrics, skipped = guarded(".x.xx.", said.append)
    assert metrics == [{"loss": 1.0}, {}, {"loss": 1.0}, {}, {}, {"loss": 1.0}]
    assert skipped == 3
    (line,) = said
    assert "are not finite: this update is skipped; further ones are only counted" in line


def test_five_in_a_row_stop_the_training(guarded, tmp_path):
    _, skipped = guarded("xxxx.xxxx")
    assert skipped == 8
    file = tmp_path / "not-finite.safetensors"
    assert not file.exists()
    with pytest.raises(TrainingError, match=f"in 5 updates in a row; {file} holds the last"):
        guarded(".xxxxx")
    with safe_open(file, "pt") as content:
        assert content.get_tensor("rewards").shape == (4, 2)
        assert torch.equal(content.get_tensor("rewards"), make_rollout(make_policy(), 4, 2).rewards)


def test_what_cannot_be_written_is_reported_and_nothing_stops():
    said = []
    with continuing_without_disk(said.append) as reached:
        reached.append(True)
    assert reached == [True]
    assert said == []
    with continuing_without_disk(said.append) as reached:
        raise OSError(errno.ENOSPC, "No space left on device", "some/file")
    assert reached == []
    line = "some/file cannot be written (No space left on device); continuing, to try again later"
    assert said == [line]


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError), continuing_without_disk(print):
        raise ZeroDivisionError
