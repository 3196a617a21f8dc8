"""Tests of `evaluation.compare`, with policies whose order is known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from agents.commandline import UsageError
from envs import EnvConfig
from evaluation.compare import Result, by_world, compare, rank
from evaluation.entries import find_entries
from evaluation.protocol import Protocol
from evaluation.report import as_dict, rows
from evaluation.statistics import summarize
from tests.evaluation.policies import by_name, compare_runs, save_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two seeds of a policy that balances, one that plays by chance twice, and one that falls."""
    folder = tmp_path_factory.mktemp("runs")
    trained = {"env_steps": 3000, "seconds": 90.0}
    save_run(folder / "good-seed0", 1.0, **trained)
    save_run(folder / "good-seed1", 1.0, seed=1, env_steps=1000, seconds=30.0)
    save_run(folder / "chance", 0.0)
    save_run(folder / "copy", 0.0)
    save_run(folder / "bad", -1.0)
    return folder


@pytest.fixture(scope="module")
def comparison(folder):
    return compare_runs(f"{folder}/*", episodes=24)


def test_policies_are_ranked(comparison, folder):
    names = [result.name.replace(f"{folder}/", "") for result in comparison.results]
    assert set(names[:2]) == {"good (sampled)", "good (greedy)"}
    ranks = dict(zip(names, comparison.ranks, strict=True))
    # Pushed the wrong way the pole falls at once; pushed at random, sometimes later.
    assert ranks["good (sampled)"] < ranks["chance (sampled)"] < ranks["bad (sampled)"]
    assert ranks["good (greedy)"] < ranks["bad (greedy)"]
    assert ranks["random"] == ranks["chance (sampled)"]
    assert list(comparison.ranks) == sorted(comparison.ranks)
    assert comparison.ranks[0] == 1


def test_equals_are_not_told_apart(comparison, folder):
    ranks = dict(zip(by_name(comparison), comparison.ranks, strict=True))
    for mode in ("sampled", "greedy"):
        twins = {f"{folder}/chance ({mode})", f"{folder}/copy ({mode})"}
        (pair,) = (p for p in comparison.pairs if {p.better.name, p.worse.name} == twins)
        # They draw by the same numbers.
        assert np.array_equal(pair.better.returns, pair.worse.returns)
        assert pair.probability.estimate == pytest.approx(0.5)
        assert not pair.is_told_apart
        assert len({ranks[name] for name in twins}) == 1


def test_one_policy_is_not_told_apart_from_itself_on_other_episodes(folder):
    entries = find_entries([f"{folder}/chance"], trust=False)
    played = []
    for seed in (0, 1000):
        protocol = Protocol(episodes=60, seed=seed, num_envs=12)
        comparison = compare(entries, protocol, modes=["sampled"], say=lambda who: None)
        played.append(by_name(comparison)[f"{folder}/chance (sampled)"])
    assert not np.array_equal(played[0].returns, played[1].returns)
    again = rank(EnvConfig(env="CartPole-v1"), Protocol(), played)
    assert again.ranks == (1, 1)
    (pair,) = again.pairs
    assert pair.probability.estimate == pytest.approx(0.5, abs=0.15)
    assert not pair.is_told_apart


def test_numbers_are_those_worked_by_hand(comparison):
    content = as_dict(comparison)
    returns = {entry["name"]: np.concatenate(entry["returns"]) for entry in content["results"]}
    rng = np.random.default_rng(1)
    for entry in content["results"]:
        values = returns[entry["name"]]
        assert entry["episodes"] == len(values) == 24 * len(entry["returns"])
        assert entry["mean"] == pytest.approx(values.mean())
        assert entry["median"] == np.median(values)
        assert entry["std"] == pytest.approx(values.std(ddof=1))
        assert entry["seed_means"] == pytest.approx([np.mean(own) for own in entry["returns"]])
        of_episodes = np.mean(entry["returns"], axis=0)  # Seeds play the same ones.
        means = of_episodes[rng.integers(24, size=(20_000, 24))].mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        width = high - low
        assert entry["ci_low"] == pytest.approx(low, abs=0.05 * width)
        assert entry["ci_high"] == pytest.approx(high, abs=0.05 * width)
    assert len(content["pairs"]) == len(returns) * (len(returns) - 1) / 2
    for pair in content["pairs"]:
        ours, theirs = returns[pair["better"]][:, None], returns[pair["worse"]]
        share = (ours > theirs).mean() + (ours == theirs).mean() / 2
        assert pair["probability"]["estimate"] == pytest.approx(share)
        assert pair["told_apart"] == (pair["p_corrected"] <= 0.05)
        assert pair["p_value"] <= pair["p_corrected"] <= 1
    counted = [pair["p_value"] for pair in content["pairs"] if pair["least_p"] <= 0.05]
    assert content["correction"]["pairs"] == len(counted)
    # Two seeds of `good` against themselves are too few for any verdict.
    assert len(counted) == len(content["pairs"]) - 1
    smallest = min(pair["p_corrected"] for pair in content["pairs"])
    assert smallest == pytest.approx(min(1, len(counted) * min(counted)))


def test_training_and_speed_are_those_of_the_seeds(folder):
    started = time.perf_counter()
    comparison = compare_runs(f"{folder}/good-*", episodes=12)
    elapsed = time.perf_counter() - started
    good = by_name(comparison)[f"{folder}/good (greedy)"]
    assert (good.env_steps, good.seconds, len(good.returns)) == (2000, 60, 2)
    seconds = [
        len(result.returns) * 12 * result.score.mean_length / result.env_steps_per_s
        for result in comparison.results
    ]
    assert all(each > 0 for each in seconds)
    assert 0.1 * elapsed < sum(seconds) < elapsed
    random = by_name(comparison)["random"]
    assert (random.env_steps, random.seconds, random.contestants) == (0, 0, ())


def test_frames_trained_count_what_is_skipped(tmp_path):
    run = save_run(tmp_path / "x", frame_skip=3, env_steps=1000, seconds=90.0)
    comparison = compare_runs(run, episodes=2, modes=["greedy"])
    (row,) = (row for row in rows(comparison) if row[1] == f"{run} (greedy)")
    assert row[-3:-1] == ("3,000", "1.5 min")


def test_results_do_not_depend_on_the_number_of_environments(folder):
    runs = [f"{folder}/good-seed0", f"{folder}/chance"]
    alone, together = (compare_runs(*runs, episodes=5, num_envs=num) for num in (2, 5))
    assert alone.ranks == together.ranks
    for left, right in zip(alone.results, together.results, strict=True):
        assert (left.name, left.score) == (right.name, right.score)
        np.testing.assert_array_equal(left.returns, right.returns)


def test_one_mode_may_be_asked_for(folder):
    comparison = compare_runs(f"{folder}/bad", episodes=2, modes=["greedy"])
    assert set(by_name(comparison)) == {f"{folder}/bad (greedy)", "random"}


def test_worlds_are_compared_one_by_one(tmp_path):
    runs = [save_run(tmp_path / "a"), save_run(tmp_path / "b", env="Acrobot-v1")]
    runs.append(save_run(tmp_path / "c"))
    worlds = by_world(find_entries(runs, trust=False))
    assert [[entry.name for entry in inside] for inside in worlds] == [
        [runs[0], runs[2]],
        [runs[1]],
    ]


def test_policies_that_act_at_another_pace_are_refused(tmp_path):
    runs = [save_run(tmp_path / str(skip), frame_skip=skip) for skip in (1, 2)]
    with pytest.raises(UsageError, match=r"of one frame_skip .* CartPole-v1 have \[1, 2\]"):
        by_world(find_entries(runs, trust=False))


def result(name, *returns):
    strata = [np.array(of_seed, np.float64) for of_seed in returns]
    score = summarize(strata, 1.0)
    return Result(
        entry=name, mode="", contestants=(), returns=strata, score=score, env_steps_per_s=1.0
    )


def test_equals_share_a_rank():
    means = {"worst": 0, "one": 10, "best": 20, "other": 10}
    results = [result(name, np.arange(20) / 10 + mean) for name, mean in means.items()]
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), results)
    assert [each.name for each in comparison.results] == ["best", "one", "other", "worst"]
    assert comparison.ranks == (1, 2, 2, 4)


def test_constant_returns_are_ranked():
    results = [result(str(i), [float(i % 2)] * 20) for i in range(4)]
    assert rank(EnvConfig(env="CartPole-v1"), Protocol(), results).ranks == (1, 1, 3, 3)


def test_who_is_mostly_better_goes_before_who_has_the_higher_mean():
    lucky = result("lucky", [0.0] * 95 + [1000.0] * 5)
    steady = result("steady", [1.0] * 100)
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), [lucky, steady])
    assert [each.name for each in comparison.results] == ["steady", "lucky"]
    assert comparison.ranks == (1, 2)
    (pair,) = comparison.pairs
    assert (pair.better, pair.worse, pair.is_told_apart) == (steady, lucky, True)
    chance = pair.probability
    assert chance.estimate == pytest.approx(0.95)
    assert chance.low <= chance.estimate <= chance.high


def test_few_episodes_tell_nobody_apart_whom_ranks_do_not():
    ours, theirs = result("ours", [3.0, 4.0, 5.0]), result("theirs", [0.0, 1.0, 2.0])
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), [ours, theirs])
    (pair,) = comparison.pairs
    assert pair.probability.low == 1  # Of three against three, which says little.
    assert comparison.ranks == (1, 1)
    assert not pair.is_told_apart


def seeds_of(name, mean, num, ratio=0.3):
    """Draw the returns of an agent's seeds."""
    rng = np.random.default_rng([ord(letter) for letter in name])
    means = mean + ratio * rng.normal(size=(num, 1))
    return result(name, *(means + rng.normal(size=(num, 100))))


def test_agents_are_told_apart_by_their_seeds():
    players = [seeds_of("good", 3, 6), seeds_of("bad", 0, 6), seeds_of("random", -3, 1)]
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), players)
    assert [each.name for each in comparison.results] == ["good", "bad", "random"]
    assert comparison.ranks == (1, 2, 3)
    assert [pair.evidence.about for pair in comparison.pairs] == ["agents"] * 3


def test_three_seeds_of_each_share_a_rank_and_are_better_than_chance():
    players = [seeds_of("good", 3, 3), seeds_of("bad", 0, 3), seeds_of("random", -3, 1)]
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), players)
    assert comparison.ranks == (1, 1, 3)
    pairs = {(pair.better.name, pair.worse.name): pair for pair in comparison.pairs}
    assert pairs["good", "bad"].evidence.about == "agents"
    assert pairs["good", "bad"].p_corrected == 1
    assert pairs["good", "random"].evidence.about == "each policy"
    assert pairs["good", "random"].is_told_apart


def test_the_better_one_goes_first_where_it_has_the_lower_mean():
    # Each policy is mostly better than random, which is lucky once in a while.
    agent = result("agent", *([1.0] * 100 for _ in range(3)))
    lucky = result("random", [0.0] * 95 + [1000.0] * 5)
    (pair,) = rank(EnvConfig(env="CartPole-v1"), Protocol(), [agent, lucky]).pairs
    assert (pair.better, pair.is_told_apart) == (agent, True)
    assert pair.evidence.is_ours_ahead
    assert pair.evidence.difference.estimate == pytest.approx(1 - 50)


def test_neighbours_follow_each_other():
    results = [result(str(mean), np.arange(30) + 10 * mean) for mean in range(4)]
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), results)
    names = [(pair.better.name, pair.worse.name) for pair in comparison.neighbours]
    assert names == [("3", "2"), ("2", "1"), ("1", "0")]
