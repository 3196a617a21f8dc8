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
from tests.agents.test_distributed import part_of
from tests.agents.thread_ranks import run_ranks
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


def test_the_rollout_that_is_kept_is_that_of_the_rank_where_it_is_not_finite(tmp_path):
    whole = make_rollout(make_policy(), 4, 4)
    whole.rewards[1, 3] = torch.inf

    def update(ranks):
        agent = Agent("xxxxx")
        agent.averaging = Averaging(ranks)
        rollout = part_of(whole, ranks)
        update = GuardedUpdate(agent, RunFolder(tmp_path), Progress(), lambda text: None)
        for _ in range(4):
            update(Collected(rollout, [], 0, version=3))
        with pytest.raises(TrainingError, match="in 5 updates in a row") as raised:
            update(Collected(rollout, [], 0, version=3))
        return str(raised.value), rollout.rewards

    (first, _), (second, rewards) = run_ranks(update)
    file = tmp_path / "not-finite.safetensors"
    assert first.endswith(f"; {file} holds the last rollout")
    assert second.endswith("in a row")
    with safe_open(file, "pt") as content:
        assert torch.equal(content.get_tensor("rewards"), rewards)


def test_a_rollout_that_cannot_be_kept_hides_nothing(guarded, tmp_path):
    (tmp_path / "not-finite.safetensors").mkdir()
    said = []
    with pytest.raises(TrainingError, match=r"not finite, in 5 updates in a row$"):
        guarded("xxxxx", said.append)
    assert "not-finite.safetensors" in said[-1]


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
