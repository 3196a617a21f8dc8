"""Tests of `evaluation.generalise`: what is played, how it is compared, and how it resumes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from envs import EnvConfig
from envs.doom.maps.arena import ArenaConfig
from envs.doom.maps.maze import MazeConfig
from envs.doom.maps.seeds import TRAINING as FIRST
from evaluation import generalise as module
from evaluation.entries import Contestant, Entry
from evaluation.errors import EvaluationError
from evaluation.generalise import (
    TRAINING,
    UNSEEN,
    Condition,
    Outcome,
    changed_options,
    conditions,
    difference,
    generalise,
    with_losses,
)
from evaluation.protocol import Protocol
from evaluation.report import generalisation
from evaluation.seeds import first_training_seed
from evaluation.statistics import summarize
from tests.agents.synthetic import make_policy

# What each condition takes away from a return of 10.
TAKEN = {UNSEEN: 2.0, "textures": 5.0, "larger maps": 3.0, "random": 9.0, "noop": 10.0}


def test_every_axis_is_one_change_and_only_where_it_exists():
    maze = {c.name: c for c in conditions(MazeConfig())}
    arena = {c.name: c for c in conditions(ArenaConfig(textures="test", hud=True))}
    assert "other monsters" not in maze
    assert "other monsters" in arena
    assert arena["textures"].changes == {"textures": "train"}
    assert "status bar" not in arena
    assert "larger maps" not in [c.name for c in conditions(MazeConfig(size=(13, 13)))]
    for condition in maze.values():
        assert len(condition.changes) == (
            condition.name not in (TRAINING, UNSEEN, "random", "noop")
        )
        changed = changed_options(MazeConfig(), condition.changes)
        assert (changed == MazeConfig()) == (not condition.changes)


def test_the_interval_of_a_difference_is_that_of_students_t():
    rng = np.random.default_rng(3)
    ours, noise = rng.normal(5, 2, 400), rng.normal(1, 0.5, 400)
    paired = difference(ours, ours - noise, paired=True)
    wanted = stats.ttest_rel(ours, ours - noise).confidence_interval()
    assert (paired.low, paired.high) == pytest.approx(tuple(wanted), abs=0.01)
    theirs = rng.normal(4, 1, 300)
    apart = difference(ours, theirs, paired=False)
    wanted = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert (apart.low, apart.high) == pytest.approx(tuple(wanted), abs=0.03)
    constant = difference(np.full(5, 3.0), np.full(5, 1.0), paired=False)
    assert (constant.low, constant.estimate, constant.high) == (2.0, 2.0, 2.0)


def test_more_policies_on_the_same_maps_are_not_more_maps():
    rng = np.random.default_rng(4)
    of_maps = {UNSEEN: rng.normal(5, 2, 100), "textures": rng.normal(3, 2, 100)}

    def width(policies):
        returns = {name: [each] * policies for name, each in of_maps.items()}
        outcomes = [
            Outcome(
                condition=Condition(name=name, changes={}),
                returns=each,
                score=summarize(each, 1.0),
            )
            for name, each in returns.items()
        ]
        (loss,) = (each.loss for each in with_losses(outcomes) if each.loss is not None)
        return loss.high - loss.low

    assert width(5) == pytest.approx(width(1))


@pytest.fixture
def entry(tmp_path):
    config = EnvConfig(env="maps:maze", map=MazeConfig(num_maps=10))
    seeds = []
    for seed in (0, 1):
        file = SimpleNamespace(policy=make_policy(), about=SimpleNamespace(seed=seed))
        seeds.append(Contestant(path=tmp_path / f"x-seed{seed}", file=file, config=config))
    return Entry(name="x", contestants=tuple(seeds))


@pytest.fixture
def played(monkeypatch):
    """What is played: (condition, first seed); a third condition can be made to fail."""
    calls = []

    def play(entry, condition, protocol, *, greedy):
        calls.append(condition.name)
        if len(calls) == play.fails_at:
            raise KeyboardInterrupt
        for _ in range(1 if condition.player else len(entry.contestants)):
            mean = 10.0 - TAKEN.get(condition.name, 0.0)
            rng = np.random.default_rng(0)
            yield [
                SimpleNamespace(episode_return=mean + r, rewards=np.zeros(7))
                for r in rng.normal(0, 1, protocol.episodes)
            ]

    play.fails_at = 0
    monkeypatch.setattr(module, "_play", play)
    return calls, play


def test_losses_are_found_and_an_interrupted_evaluation_is_continued(entry, played, tmp_path):
    (calls, play), file = played, tmp_path / "generalise.json"
    options = {"greedy": False, "file": file, "progress": lambda name: None}
    play.fails_at = 4
    with pytest.raises(KeyboardInterrupt):
        generalise(entry, Protocol(episodes=16), **options)
    play.fails_at = 0
    interrupted = calls[:3]
    calls.clear()
    outcomes = {o.condition.name: o for o in generalise(entry, Protocol(episodes=16), **options)}
    assert not set(interrupted) & set(calls)
    assert [*interrupted, *calls] == [c.name for c in conditions(entry.config.map)]
    assert outcomes[TRAINING].loss.estimate == pytest.approx(2.0)
    assert outcomes[TRAINING].loss.low < 2.0 < outcomes[TRAINING].loss.high
    # The same noise for the same seeds: pairs leave no doubt.
    textures = outcomes["textures"].loss
    assert (textures.low, textures.high) == pytest.approx((3.0, 3.0))
    assert outcomes["dim light"].loss.estimate == pytest.approx(-2.0)
    assert outcomes[UNSEEN].loss is None
    assert len(outcomes["random"].returns) == 1
    stored = json.loads(file.read_text())
    assert [r["condition"] for r in stored["results"]] == list(outcomes)
    # Another protocol is another evaluation.
    calls.clear()
    generalise(entry, Protocol(episodes=17), **options)
    assert len(calls) == len(outcomes)
    _, rows = generalisation.table(list(outcomes.values()))
    assert rows[2][3] == "-3.00 (-3.00 to -3.00)"
    assert rows[0][3].startswith("2.00 (")
    assert "| textures |" in generalisation.markdown("a title", list(outcomes.values()), "")
    assert generalisation.picture("a title", list(outcomes.values())).axes


def test_training_maps_are_those_of_the_trainings_first_episodes(entry, monkeypatch):
    seeds = []

    def play(contestant, condition, protocol, *, greedy):
        seeds.append((condition.name, protocol.seed))
        return []

    monkeypatch.setattr(module, "_play_contestant", play)
    for condition in conditions(entry.config.map)[:3]:
        list(module._play(entry, condition, Protocol(seed=5), greedy=False))
    assert seeds[:2] == [(TRAINING, first_training_seed(0)), (TRAINING, first_training_seed(1))]
    assert min(seeds[0][1], seeds[1][1]) >= FIRST
    assert seeds[2:] == [(UNSEEN, 5)] * 2 + [("textures", 5)] * 2


def test_a_run_whose_map_is_not_generated_is_refused(entry, tmp_path):
    seed = entry.contestants[0]
    basic = Entry(
        name="b", contestants=(Contestant(path=seed.path, file=seed.file, config=EnvConfig()),)
    )
    with pytest.raises(EvaluationError, match=r"trained in basic, .* maps:maze"):
        generalise(basic, Protocol(), greedy=False, file=tmp_path / "x", progress=print)
