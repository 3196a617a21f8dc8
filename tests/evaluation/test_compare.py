"""Tests of `evaluation.compare`, with policies whose order is known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from envs import EnvConfig
from evaluation.compare import Result, by_env, rank
from evaluation.entries import find_entries
from evaluation.errors import EvaluationError
from evaluation.protocol import Protocol, play
from evaluation.report.report import as_dict
from evaluation.report.tables import COLUMNS, rows
from evaluation.statistics import summarize
from tests.agents.toy import LocalEnvs
from tests.evaluation.policies import by_name, compare_runs, local_env, save_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two seeds of a policy that balances, a random policy and its copy, and one that falls."""
    folder = tmp_path_factory.mktemp("runs")
    trained = {"env_steps": 3000, "seconds": 90.0}
    save_run(folder / "good-seed0", 1.0, **trained)
    save_run(folder / "good-seed1", 1.0, seed=1, env_steps=1000, seconds=30.0)
    save_run(folder / "random_policy", 0.0)
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
    # Pushed in the wrong direction, the pole falls at once; pushed at random, it may fall later.
    assert ranks["good (sampled)"] < ranks["random_policy (sampled)"] < ranks["bad (sampled)"]
    assert ranks["good (greedy)"] < ranks["bad (greedy)"]
    assert ranks["random"] == ranks["random_policy (sampled)"]
    assert list(comparison.ranks) == sorted(comparison.ranks)
    assert comparison.ranks[0] == 1


def test_equal_policies_cannot_be_distinguished(comparison, folder):
    ranks = dict(zip(by_name(comparison), comparison.ranks, strict=True))
    for mode in ("sampled", "greedy"):
        twins = {f"{folder}/random_policy ({mode})", f"{folder}/copy ({mode})"}
        (pair,) = (p for p in comparison.pairs if {p.better.name, p.worse.name} == twins)
        # Both draw the same random numbers.
        assert np.array_equal(pair.better.returns, pair.worse.returns)
        assert pair.probability.estimate == pytest.approx(0.5)
        assert not pair.is_significant
        assert len({ranks[name] for name in twins}) == 1


def test_a_policy_cannot_be_distinguished_from_itself_on_other_episodes(folder):
    (entry,) = find_entries([f"{folder}/random_policy"], trust=False)
    (contestant,) = entry.contestants
    played = []
    for seed in (0, 1000):
        with local_env(contestant.config, 12, 60) as envs:
            episodes = play(contestant.file, envs, Protocol(episodes=60, seed=seed))
        played.append(result(str(seed), [episode.episode_return for episode in episodes]))
    assert not np.array_equal(played[0].returns, played[1].returns)
    again = rank(EnvConfig(env="CartPole-v1"), Protocol(), played)
    assert again.ranks == (1, 1)
    (pair,) = again.pairs
    assert pair.probability.estimate == pytest.approx(0.5, abs=0.15)
    assert not pair.is_significant


def test_numbers_follow_from_the_returns(comparison):
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
        of_episodes = np.mean(entry["returns"], axis=0)  # All seeds play the same episodes.
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
    # Two seeds of `good` against two are too few for a significant result.
    assert len(counted) == len(content["pairs"]) - 1
    smallest = min(pair["p_corrected"] for pair in content["pairs"])
    assert smallest == pytest.approx(min(1, len(counted) * min(counted)))


def test_length_of_training_and_speed_are_averaged_over_seeds(folder):
    started = time.perf_counter()
    comparison = compare_runs(f"{folder}/good-*", episodes=6, with_workers=True)
    elapsed = time.perf_counter() - started
    good = by_name(comparison)[f"{folder}/good (greedy)"]
    assert (good.env_steps, good.seconds, len(good.returns)) == (2000, 60, 2)
    seconds = [
        len(result.returns) * 6 * result.score.mean_length / result.env_steps_per_s
        for result in comparison.results
    ]
    assert all(each > 0 for each in seconds)
    assert 0.1 * elapsed < sum(seconds) < elapsed
    random = by_name(comparison)["random"]
    assert (random.env_steps, random.seconds, random.contestants) == (0, 0, ())


def test_the_speed_of_no_player_includes_the_start_of_the_environments(folder, monkeypatch):
    events = []

    def reset(envs, *args, **kwargs):
        events.append("start")
        return original(envs, *args, **kwargs)

    original = LocalEnvs.reset
    monkeypatch.setattr(LocalEnvs, "reset", reset)
    monkeypatch.setattr(
        "evaluation.compare.play",
        lambda *args, **kwargs: events.append("play") or play(*args, **kwargs),
    )
    compare_runs(f"{folder}/good-seed0", episodes=2)
    # The environments of the policy, then those of the baselines, are started before any is timed.
    played = ["play", "start"]  # Every player starts its episodes again.
    assert events == ["start", *played, *played, "start", *played]


def test_frames_trained_include_skipped_frames(tmp_path):
    run = save_run(tmp_path / "x", frame_skip=3, env_steps=1000, seconds=90.0)
    comparison = compare_runs(run, episodes=2, modes=["greedy"])
    (row,) = (row for row in rows(comparison) if row[1] == f"{run} (greedy)")
    cells = dict(zip(COLUMNS, row, strict=True))
    assert (cells["frames trained"], cells["training time"]) == ("3,000", "1.5 min")


def test_results_do_not_depend_on_the_number_of_environments(folder):
    runs = [f"{folder}/good-seed0", f"{folder}/random_policy"]
    few = compare_runs(*runs, episodes=5, num_envs=2, with_workers=True)
    many = compare_runs(*runs, episodes=5, num_envs=5)
    assert few.ranks == many.ranks
    for left, right in zip(few.results, many.results, strict=True):
        assert (left.name, left.score) == (right.name, right.score)
        np.testing.assert_array_equal(left.returns, right.returns)


def test_a_single_mode_may_be_chosen(folder):
    comparison = compare_runs(f"{folder}/bad", episodes=2, modes=["greedy"])
    assert set(by_name(comparison)) == {f"{folder}/bad (greedy)", "random"}


def test_each_environment_is_a_group(tmp_path):
    runs = [save_run(tmp_path / "a"), save_run(tmp_path / "b", env="Acrobot-v1")]
    runs.append(save_run(tmp_path / "c"))
    groups = by_env(find_entries(runs, trust=False))
    assert [[entry.name for entry in group] for group in groups] == [
        [runs[0], runs[2]],
        [runs[1]],
    ]


def test_an_environment_made_with_other_arguments_is_another_group(tmp_path):
    pairs = ((), ("sutton_barto_reward=True",))
    runs = [save_run(tmp_path / str(n), env_kwargs=pair) for n, pair in enumerate(pairs)]
    assert len(by_env(find_entries(runs, trust=False))) == 2


def test_policies_with_different_frame_skips_cannot_be_compared(tmp_path):
    runs = [save_run(tmp_path / str(skip), frame_skip=skip) for skip in (1, 2)]
    with pytest.raises(
        EvaluationError, match=r"runs in CartPole-v1 have different frame skips \(1, 2\)"
    ):
        by_env(find_entries(runs, trust=False))


def result(name, *returns):
    strata = [np.array(of_seed, np.float64) for of_seed in returns]
    score = summarize(strata, 1.0)
    return Result(
        entry=name, mode="", contestants=(), returns=strata, score=score, env_steps_per_s=1.0
    )


def test_equal_players_share_a_rank():
    means = {"worst": 0, "one": 10, "best": 20, "other": 10}
    results = [result(name, np.arange(20) / 10 + mean) for name, mean in means.items()]
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), results)
    assert [each.name for each in comparison.results] == ["best", "one", "other", "worst"]
    assert comparison.ranks == (1, 2, 2, 4)


def test_constant_returns_are_ranked():
    results = [result(str(i), [float(i % 2)] * 20) for i in range(4)]
    assert rank(EnvConfig(env="CartPole-v1"), Protocol(), results).ranks == (1, 1, 3, 3)


def test_a_player_that_is_mostly_better_is_before_one_with_a_higher_mean():
    lucky = result("lucky", [0.0] * 95 + [1000.0] * 5)
    steady = result("steady", [1.0] * 100)
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), [lucky, steady])
    assert [each.name for each in comparison.results] == ["steady", "lucky"]
    assert comparison.ranks == (1, 2)
    (pair,) = comparison.pairs
    assert (pair.better, pair.worse, pair.is_significant) == (steady, lucky, True)
    chance = pair.probability
    assert chance.estimate == pytest.approx(0.95)
    assert chance.low <= chance.estimate <= chance.high


def test_three_episodes_against_three_are_never_significant():
    ours, theirs = result("ours", [3.0, 4.0, 5.0]), result("theirs", [0.0, 1.0, 2.0])
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), [ours, theirs])
    (pair,) = comparison.pairs
    assert pair.probability.low == 1  # The bootstrap interval of three episodes is too narrow.
    assert comparison.ranks == (1, 1)
    assert not pair.is_significant


def seeds_of(name, mean, num, ratio=0.3):
    """Draw the returns of the seeds of an agent."""
    rng = np.random.default_rng([ord(letter) for letter in name])
    means = mean + ratio * rng.normal(size=(num, 1))
    return result(name, *(means + rng.normal(size=(num, 100))))


def test_agents_are_compared_by_their_seeds():
    players = [seeds_of("good", 3, 6), seeds_of("bad", 0, 6), seeds_of("random", -3, 1)]
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), players)
    assert [each.name for each in comparison.results] == ["good", "bad", "random"]
    assert comparison.ranks == (1, 2, 3)
    assert [pair.evidence.about for pair in comparison.pairs] == ["agents"] * 3


def test_agents_with_three_seeds_share_a_rank_and_are_better_than_random():
    players = [seeds_of("good", 3, 3), seeds_of("bad", 0, 3), seeds_of("random", -3, 1)]
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), players)
    assert comparison.ranks == (1, 1, 3)
    pairs = {(pair.better.name, pair.worse.name): pair for pair in comparison.pairs}
    assert pairs["good", "bad"].evidence.about == "agents"
    assert pairs["good", "bad"].p_corrected == 1
    assert pairs["good", "random"].evidence.about == "each policy"
    assert pairs["good", "random"].is_significant


def test_the_better_player_is_first_even_if_its_mean_is_lower():
    # Most episodes of each policy are better than those of random, which has a few high returns.
    agent = result("agent", *([1.0] * 100 for _ in range(3)))
    lucky = result("random", [0.0] * 95 + [1000.0] * 5)
    (pair,) = rank(EnvConfig(env="CartPole-v1"), Protocol(), [agent, lucky]).pairs
    assert (pair.better, pair.is_significant) == (agent, True)
    assert pair.evidence.is_ours_ahead
    assert pair.evidence.difference.estimate == pytest.approx(1 - 50)


def test_neighbours_are_consecutive_results():
    results = [result(str(mean), np.arange(30) + 10 * mean) for mean in range(4)]
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), results)
    names = [(pair.better.name, pair.worse.name) for pair in comparison.neighbours]
    assert names == [("3", "2"), ("2", "1"), ("1", "0")]
