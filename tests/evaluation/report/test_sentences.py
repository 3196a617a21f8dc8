"""Tests of `evaluation.report.sentences`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from envs import SCENARIOS, EnvConfig
from evaluation.report.sentences import footnotes, summary_notes, verdict, verdicts
from tests.evaluation.report.results import RANDOM, agent, compared, player


def sentences_of(*players):
    """Return the verdicts and the footnotes of a comparison."""
    comparison = compared(*players)
    return verdicts(comparison), " ".join(footnotes(comparison))


def test_verdicts_agree_with_the_numbers(comparison):
    for pair in comparison.neighbours:
        expected = "significantly better than" if pair.is_significant else "cannot be distinguished"
        sentence = verdict(pair, len(comparison.pairs))
        assert expected in sentence
        if pair.evidence.about == "agents":
            assert f"{pair.evidence.difference.estimate:.2f} (" in sentence
        else:
            assert f"{pair.probability.estimate:.2f} (" in sentence


def test_verdicts_on_policies_name_the_policies():
    policies = player("a", np.arange(50.0) + 40), player("b", np.arange(50.0))
    (first, second), notes = sentences_of(*policies, RANDOM)
    assert first.startswith(
        "The policy a (sampled) is significantly better than the policy b (sampled): probability "
        "of a higher episode return 0."
    )
    assert second.startswith("The policy b (sampled) is significantly better than random: prob")
    assert "these policies" in notes
    assert "new seeds" not in notes
    assert "other training seeds" not in notes


def test_a_verdict_beside_means_that_are_far_apart_says_what_is_tested():
    often_lower = np.array([-385.0, 90.0] * 25)
    noop = player("noop", np.full(50, -300.0), mode="")
    (sentence,), notes = sentences_of(player("random", often_lower, mode=""), noop)
    assert sentence.startswith("random and noop cannot be distinguished by whose episodes score hi")
    assert sentence.endswith("not tested: the means, -147.50 and -300.00")
    assert "They do not test means" in notes


def test_verdicts_on_agents_are_over_training_seeds():
    (first, second), notes = sentences_of(agent("a", 8, 3.0), agent("b", 7, 0.0), RANDOM)
    assert first.startswith(
        "The agent a (sampled) is significantly better than the agent b (sampled): mean higher by "
    )
    assert first.endswith("over new seeds; p < 0.001")
    assert "is significantly better than random: mean higher by" in second
    assert "Verdicts on agents apply to other training seeds as well" in notes
    assert "Too few training seeds" not in notes


def test_three_seeds_against_three_are_too_few():
    (first, second), notes = sentences_of(agent("a", 3, 300.0), agent("b", 3, 0.0), RANDOM)
    assert "The agent a (sampled) and the agent b (sampled) cannot be distinguished" in first
    assert "mean higher by 3" in first
    assert "p = " not in first
    assert first.endswith(
        "3 seeds against 3 cannot reach significance, whatever their scores (the uncorrected "
        "p-value is at least 0.10); 5 seeds of each can"
    )
    assert second.startswith(
        "Each of the 3 policies of b (sampled) is significantly better than random: "
    )
    assert "Too few training seeds: in 1 of 3 pairs" in notes
    assert "4 seeds of each are enough if one pair is compared, 5 for any pair of" in notes
    assert "each of them must be better" in notes


def test_policies_of_an_agent_may_be_no_better_than_a_baseline():
    same = agent("a", 3, 0.0)
    (sentence,), _ = sentences_of(same, player("random", same.returns[0], mode=""))
    assert "3 policies of a (sampled)" in sentence
    assert "each of" not in sentence.lower()
    assert "cannot be distinguished" in sentence


def test_footnotes_contain_the_protocol_and_the_source_of_the_reference(comparison):
    sentence = comparison.protocol.sentence(comparison.config)
    assert "24 episodes at seeds 0 to 23" in sentence
    assert "12 environments in parallel" in sentence
    assert footnotes(comparison)[0] == sentence
    assert not any("Reference" in note for note in footnotes(comparison))
    in_doom = replace(comparison, config=EnvConfig(env="basic"))
    source = f"Reference: {SCENARIOS['basic'].reference.source}."
    assert footnotes(in_doom)[-1] == source
    about_intervals, cartpole, basic = summary_notes([comparison, in_doom])
    assert "Intervals over new seeds" in about_intervals
    assert cartpole == f"CartPole-v1: {sentence}"
    assert basic == f"basic: {in_doom.protocol.sentence(in_doom.config)} {source}"
