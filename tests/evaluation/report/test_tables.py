"""Tests of `evaluation.report.tables`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envs import SCENARIOS, EnvConfig
from evaluation.report.tables import (
    COLUMNS,
    OVER_EPISODES,
    OVER_SEEDS,
    SUMMARY_COLUMNS,
    number,
    reference,
    rows,
    score_cells,
    summary,
    summary_rows,
    with_interval,
)
from tests.evaluation.report.results import RANDOM, agent, compared


def test_every_row_has_every_column(comparison):
    table = rows(comparison)
    assert {len(row) for row in table} == {len(COLUMNS)}
    cells = [dict(zip(COLUMNS, row, strict=True)) for row in table]
    assert [row["player"] for row in cells] == [result.name for result in comparison.results]
    assert [row["rank"] for row in cells] == list(map(str, comparison.ranks))
    best, score = cells[0], comparison.results[0].score
    assert best["mean"] == number(score.mean)
    assert best["seeds' means"] == ", ".join(map(number, score.seed_means))
    assert best["min to max"] == f"{number(score.min)} to {number(score.max)}"
    assert best["episode length"] == f"{score.mean_length:,.0f} env steps"
    assert (best["frames trained"], best["training time"]) == ("300", "0.0 min")
    baseline = next(row for row in cells if row["player"] == "random")
    assert (baseline["frames trained"], baseline["training time"]) == ("", "")


def test_the_reference_is_the_last_row(comparison):
    assert reference("CartPole-v1") is None
    assert all(row[1] != "reference" for row in rows(comparison))
    in_doom = replace(comparison, config=EnvConfig(env="basic"))
    assert reference("basic") == SCENARIOS["basic"].reference
    assert rows(in_doom)[-1] == ("", "reference", "80.40", *[""] * (len(COLUMNS) - 3))


def test_intervals_over_episodes_and_over_new_seeds_have_their_own_columns():
    comparison = compared(agent("a", 3, 5.0), RANDOM)
    ours, theirs = rows(comparison)
    over_episodes, over_seeds = COLUMNS.index(OVER_EPISODES), COLUMNS.index(OVER_SEEDS)
    score = comparison.results[0].score
    assert ours[over_episodes] == f"{score.ci_low:,.2f} to {score.ci_high:,.2f}"
    assert ours[over_seeds] == f"{score.seeds_low:,.2f} to {score.seeds_high:,.2f}"
    assert theirs[over_seeds] == ""
    (row,) = summary_rows([comparison])
    assert f"; new seeds: {ours[over_seeds]})" in row[SUMMARY_COLUMNS.index("sampled")]
    assert score_cells(score)[:2] == (ours[COLUMNS.index("mean")], ours[over_episodes])


def test_the_summary_has_a_row_for_each_environment_and_entry(comparison):
    in_doom = replace(comparison, config=EnvConfig(env="basic"))
    content, table = summary([comparison, in_doom]), summary_rows([comparison, in_doom])
    assert [row["env"] for row in content] == ["CartPole-v1", "CartPole-v1", "basic", "basic"]
    assert [row[:2] for row in table] == [(row["env"], row["player"]) for row in content]
    assert [row[-1] for row in table] == ["", "", "80.40", "80.40"]
    scores = {result.name: result.score for result in comparison.results}
    for cells, row in zip(table, content, strict=True):
        for column, name in (
            ("sampled", f"{row['player']} (sampled)"),
            ("greedy", f"{row['player']} (greedy)"),
            ("random", "random"),
        ):
            score = scores[name]
            assert row[column] == {
                "mean": score.mean,
                "ci_low": score.ci_low,
                "ci_high": score.ci_high,
                "seeds_low": score.seeds_low,
                "seeds_high": score.seeds_high,
            }
            text = with_interval(score.mean, score.ci_low, score.ci_high).removesuffix(")")
            assert cells[SUMMARY_COLUMNS.index(column)].startswith(text)
        assert row["noop"] is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.005, "0.01"), (-999.994, "-999.99"), (1234.56, "1,234.6")]
)
def test_large_numbers_have_fewer_decimals(value, text):
    assert number(value) == text
