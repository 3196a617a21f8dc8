"""Tests of `evaluation.report`, by reading back what it wrote."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown import markdown as html

from envs import SCENARIOS, EnvConfig
from evaluation.compare import Result, rank
from evaluation.protocol import Protocol
from evaluation.report import (
    COLUMNS,
    OVER_EPISODES,
    OVER_SEEDS,
    SUMMARY_COLUMNS,
    as_dict,
    folder_names,
    footnotes,
    markdown,
    rows,
    summary_markdown,
    verdict,
    verdicts,
    write_report,
    write_summary,
)
from evaluation.statistics import summarize
from tests.evaluation.policies import compare_runs, renamed, save_run

HOSTILE = [
    *("a|b", "`rm -rf`", "two\nlines", "<script>alert(1)</script>", "*bold*", "_it_", "&lt;"),
    *("[link](http://x)", "\\|", "~~gone~~", "$x^2$", "![i](x.png)", "a_b_c", "a<br>b", "\r"),
]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Two seeds with curves, and a policy without."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        curve = [(100, 10 + seed), (300, 40)]
        save_run(folder / f"good-seed{seed}", 1.0, seed=seed, curve=curve, env_steps=300)
    save_run(folder / "bad", -1.0)
    return compare_runs(f"{folder}/good-*", f"{folder}/bad", episodes=24)


def tables(text):
    """Give the cells of all tables in Markdown, row by row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def as_text(cell):
    """Read a cell as a person does who sees the page."""
    return re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), cell)


def test_every_row_has_every_column(comparison):
    lines = tables(markdown(comparison))
    num = len(comparison.results)
    scores, circumstances = lines[: num + 2], lines[num + 2 :]
    assert [*scores[0], *circumstances[0][1:]] == list(COLUMNS)
    for table, name in ((scores, 1), (circumstances, 0)):
        assert len(table) == num + 2 == 7
        assert {len(row) for row in table} == {len(table[0])}
        assert [row[name] for row in table[2:]] == [result.name for result in comparison.results]
    best = comparison.results[0]
    means = ", ".join(f"{mean:,.2f}" for mean in best.score.seed_means)
    assert scores[2][:3] == ["1", best.name, f"{best.score.mean:,.2f}"]
    length = f"{best.score.mean_length:,.0f} env steps"
    assert (scores[2][-1], circumstances[2][2]) == (means, length)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_text(comparison, name):
    other = renamed(comparison, name)
    for text, widths in (
        (markdown(other), {9, 6}),
        (summary_markdown([other, other]), {len(SUMMARY_COLUMNS)}),
    ):
        cells = tables(text)
        assert {len(row) for row in cells} == widths
        shown = name.replace("\n", " ").replace("\r", " ").strip()
        assert any(as_text(cell).startswith(shown) for row in cells for cell in row)
        # As TensorBoard reads it, and others like it.
        page = html(text, extensions=["tables"])
        assert not re.search(r"<(script|strong|em|code|img|a|del)\b", page)
        assert page.count("<h1>") == 1


def test_pictures_are_shown(comparison):
    assert '<img alt="scores" src="scores.svg"' in html(markdown(comparison, ["scores.svg"]))


def test_every_table_says_how_it_came_about(comparison):
    sentence = comparison.protocol.sentence(comparison.config)
    assert "24 episodes at seeds 0 to 23" in sentence
    assert "12 games in parallel" in sentence
    assert sentence in markdown(comparison)
    assert f"- CartPole-v1: {sentence}" in summary_markdown([comparison])


def test_the_reference_appears_with_its_source(comparison):
    assert "eference" not in markdown(comparison)
    assert as_dict(comparison)["reference"] is None
    in_doom = replace(comparison, config=EnvConfig(env="basic"))
    known = SCENARIOS["basic"].reference
    assert rows(in_doom)[-1] == ("", "reference", "80.40", *[""] * (len(COLUMNS) - 3))
    assert f"Reference: {known.source}." in markdown(in_doom)
    assert as_dict(in_doom)["reference"] == {"mean": 80.4, "source": known.source}
    both = summary_markdown([comparison, in_doom])
    assert [row[-1] for row in tables(both)[2:]] == ["", "", "80.40", "80.40"]
    assert f"Reference: {known.source}." in both


def test_verdicts_are_those_of_the_numbers(comparison):
    for pair in comparison.neighbours:
        told = "is better than" if pair.is_told_apart else "cannot be told apart"
        said = verdict(pair, len(comparison.pairs))
        assert told in said
        if pair.evidence.about == "agents":
            assert f"{pair.evidence.difference.estimate:.2f} (" in said
        else:
            assert f"{pair.probability.estimate:.2f} (" in said


def player(name, *returns, mode="sampled"):
    strata = [np.array(of_seed, np.float64) for of_seed in returns]
    return Result(
        entry=name,
        mode=mode,
        contestants=(),
        returns=strata,
        score=summarize(strata, 1.0),
        env_steps_per_s=1.0,
    )


def agent(name, num, mean):
    rng = np.random.default_rng(num)
    return player(name, *(mean + 0.1 * rng.normal(size=(num, 1)) + rng.normal(size=(num, 50))))


def said_of(*players):
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), players)
    return verdicts(comparison), " ".join(footnotes(comparison))


BUILT_IN = player("random", np.arange(50.0) - 60, mode="")


def test_verdicts_on_single_policies_say_so():
    said, notes = said_of(player("a", np.arange(50.0) + 40), player("b", np.arange(50.0)), BUILT_IN)
    assert said[0].startswith("This policy, a (sampled), is better than this policy, b (sampled): ")
    assert said[1].startswith("This policy, b (sampled), is better than random: probability 1.00 (")
    assert "these policies" in notes
    assert "new seeds" not in notes
    assert "other training seeds" not in notes


def test_verdicts_on_agents_say_that_they_are_over_training_seeds():
    said, notes = said_of(agent("a", 8, 3.0), agent("b", 7, 0.0), BUILT_IN)
    assert said[0].startswith(
        "The agent a (sampled), over training seeds, is better than "
        "the agent b (sampled), over training seeds: mean higher by "
    )
    assert said[0].endswith("over new seeds; p < 0.001")
    assert "is better than random: mean higher by" in said[1]
    assert "Verdicts on agents are about other training seeds as well" in notes
    assert "Too few training seeds" not in notes


def test_three_seeds_against_three_are_said_to_be_too_few():
    said, notes = said_of(agent("a", 3, 300.0), agent("b", 3, 0.0), BUILT_IN)
    assert "cannot be told apart: mean higher by 3" in said[0]
    assert "p = " not in said[0]
    assert said[0].endswith(
        "3 seeds against 3 cannot decide, whatever they score (p is 0.10 at least, uncorrected), "
        "5 of each would be enough"
    )
    assert said[1].startswith("Each of the 3 policies of b (sampled) is better than random: ")
    assert "Too few training seeds: 1 of 3 pairs" in notes
    assert "4 seeds of each are enough where one pair is compared, 5 for any pair of" in notes
    assert "each of which has to be better" in notes


def test_intervals_over_episodes_and_over_new_seeds_are_told_apart():
    comparison = rank(EnvConfig(env="CartPole-v1"), Protocol(), [agent("a", 3, 5.0), BUILT_IN])
    ours, theirs = rows(comparison)
    over_episodes, over_seeds = COLUMNS.index(OVER_EPISODES), COLUMNS.index(OVER_SEEDS)
    score = comparison.results[0].score
    assert ours[over_episodes] == f"{score.ci_low:,.2f} to {score.ci_high:,.2f}"
    assert ours[over_seeds] == f"{score.seeds_low:,.2f} to {score.seeds_high:,.2f}"
    assert theirs[over_seeds] == ""
    (row,) = tables(summary_markdown([comparison]))[2:]
    assert f"; new seeds: {ours[over_seeds]})" in row[SUMMARY_COLUMNS.index("sampled")]


def test_what_is_written_is_read_back(comparison, tmp_path):
    write_report(comparison, tmp_path)
    content = json.loads((tmp_path / "compare.json").read_text())
    assert content == json.loads(json.dumps(as_dict(comparison)))
    for read, result in zip(content["results"], comparison.results, strict=True):
        assert (read["name"], read["mode"]) == (result.name, result.mode)
        np.testing.assert_array_equal(read["returns"], result.returns)
        assert [p["path"] for p in read["policies"]] == [str(c.path) for c in result.contestants]
    names = {"scores.svg", "profiles.svg", "improvement.svg", "curves.svg"}
    assert {path.name for path in tmp_path.iterdir()} == {"compare.md", "compare.json", *names}
    for name in names:
        assert ElementTree.parse(tmp_path / name).getroot().tag.endswith("svg")
        assert f"]({name})" in (tmp_path / "compare.md").read_text()


def test_written_again_it_is_the_same(comparison, tmp_path):
    for name in ("one", "two"):
        write_report(comparison, tmp_path / name)
        write_summary([comparison, comparison], tmp_path / name)
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}


def test_pictures_of_hostile_names_are_valid(comparison, tmp_path):
    names = [*HOSTILE, "\x1b[0m\x00"]
    for pair in zip(names[::2], names[1::2], strict=True):
        write_report(renamed(comparison, *pair), tmp_path)
        for path in tmp_path.glob("*.svg"):
            ElementTree.parse(path)


def test_pictures_of_an_earlier_comparison_go(comparison, tmp_path):
    write_report(comparison, tmp_path)
    assert (tmp_path / "curves.svg").exists()
    untrained = [result for result in comparison.results if "good" not in result.entry]
    write_report(rank(comparison.config, comparison.protocol, untrained), tmp_path)
    assert not (tmp_path / "curves.svg").exists()


def test_the_summary_has_a_row_for_each_world_and_entry(comparison, tmp_path):
    in_doom = replace(comparison, config=EnvConfig(env="basic"))
    write_summary([comparison, in_doom], tmp_path)
    first, _, *body = tables((tmp_path / "summary.md").read_text())
    assert first == list(SUMMARY_COLUMNS)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert [row[:2] for row in body] == [[r["env"], r["player"]] for r in content["rows"]]
    assert [row[0] for row in body] == ["CartPole-v1", "CartPole-v1", "basic", "basic"]
    scores = {result.name: result.score for result in comparison.results}
    for cells, row in zip(body, content["rows"], strict=True):
        for column, name in (
            ("sampled", f"{row['player']} (sampled)"),
            ("greedy", f"{row['player']} (greedy)"),
            ("random", "random"),
        ):
            score = scores[name]
            assert row[column] == {
                **{"mean": score.mean, "ci_low": score.ci_low, "ci_high": score.ci_high},
                **{"seeds_low": score.seeds_low, "seeds_high": score.seeds_high},
            }
            written = f"{score.mean:,.2f} ({score.ci_low:,.2f} to {score.ci_high:,.2f}"
            assert cells[SUMMARY_COLUMNS.index(column)].startswith(written)
        assert row["noop"] is None


def test_folders_have_names_of_their_own():
    for name in ("../x", "a/b", "..", ".", "", "/", "x" * 300, "é" * 300, "\n", "a\0b", "-rf"):
        (folder,) = folder_names([name])
        assert folder not in ("", ".", "..")
        assert not set(folder) & set("/\0\n")
        assert len(folder.encode()) <= 255
    assert folder_names(["a/b", "a-b", "a b", "a-b-2"]) == ["a-b", "a-b-2", "a-b-3", "a-b-2-2"]
    assert folder_names(["basic", "runs/basic/ppo (greedy)"]) == [
        *("basic", "runs-basic-ppo-(greedy)")
    ]
