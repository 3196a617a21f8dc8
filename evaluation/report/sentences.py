"""The sentences of comparisons: verdicts on pairs, and the footnotes of tables."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.compare import Comparison, Pair, Result
from evaluation.protocol import counted
from evaluation.report.tables import number, reference, with_interval
from evaluation.verdicts import AGENTS, ALPHA, EACH_POLICY, FEWEST_SEEDS, POLICIES, enough_seeds


def verdicts(comparison: Comparison) -> list[str]:
    """Return the verdict on each result and the next one."""
    return [verdict(pair, len(comparison.pairs)) for pair in comparison.neighbours]


def verdict(pair: Pair, num_pairs: int) -> str:
    """Return which one of a pair is significantly better, or that neither is.

    Args:
        pair: the pair.
        num_pairs: number of pairs of the table.
    """
    one, other = _subject(pair.better, pair), _subject(pair.worse, pair)
    if pair.is_significant:
        sentence = f"{one} is significantly better than {other}"
    elif pair.evidence.about == POLICIES:
        # Next to means that are far apart, the sentence would be surprising without what is tested.
        sentence = f"{one} and {other} cannot be distinguished by whose episodes score higher"
    else:
        sentence = f"{one} and {other} cannot be distinguished"
    if not sentence.startswith(pair.better.name):
        sentence = sentence[0].upper() + sentence[1:]
    return f"{sentence}: {'; '.join(_grounds(pair, num_pairs))}"


def _subject(result: Result, pair: Pair) -> str:
    """Return the name of a result, with what the verdict applies to."""
    if result.is_agent and pair.evidence.about == AGENTS:
        return f"the agent {result.name}"
    if result.is_agent:
        each = "each of the" if pair.is_significant else "the"
        return f"{each} {len(result.returns)} policies of {result.name}"
    return f"the policy {result.name}" if result.mode else result.name


def _grounds(pair: Pair, num_pairs: int) -> list[str]:
    """Return the numbers behind a verdict, and whether there were too few training seeds."""
    evidence, p = pair.evidence, pair.probability
    grounds = []
    if evidence.difference:
        d = evidence.difference
        higher = "higher" if d.estimate >= 0 else "lower"
        ends = (d.low, d.high) if d.estimate >= 0 else (-d.high, -d.low)
        by = with_interval(abs(d.estimate), *ends)
        grounds.append(f"mean {higher} by {by} over new seeds")
    if evidence.about != AGENTS:
        grounds.append(
            f"probability of a higher episode return {p.estimate:.2f} ({p.low:.2f} to {p.high:.2f})"
        )
    if evidence.can_decide:
        p_value = pair.p_corrected
        grounds.append("p < 0.001" if p_value < 0.001 else f"p = {_significant(p_value)}")
    if not pair.is_significant and evidence.about == POLICIES:
        means = " and ".join(number(result.score.mean) for result in (pair.better, pair.worse))
        grounds.append(f"not tested: the means, {means}")
    if not pair.is_significant and evidence.least_p > ALPHA / num_pairs:
        seeds = f"{len(pair.better.returns)} seeds against {len(pair.worse.returns)}"
        cannot = (
            "can hardly reach significance"
            if evidence.can_decide
            else "cannot reach significance, whatever their scores"
        )
        grounds.append(
            f"{seeds} {cannot} (the uncorrected p-value is at least "
            f"{_significant(evidence.least_p)}); {enough_seeds(num_pairs)} seeds of each can"
        )
    return grounds


def _significant(p_value: float) -> str:
    return f"{p_value:.2f}" if p_value >= 0.1 else f"{p_value:.3f}"


def footnotes(comparison: Comparison) -> list[str]:
    """Return how the numbers of a table were obtained, and the source of the reference."""
    return [
        comparison.protocol.sentence(comparison.config),
        _about_intervals(any(result.is_agent for result in comparison.results)),
        _about_verdicts(comparison),
        *_about_few_seeds(comparison),
        *_source(comparison),
    ]


def summary_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return how the numbers of the table of all environments were obtained."""
    results = [result for comparison in comparisons for result in comparison.results]
    notes = [_about_intervals(any(result.is_agent for result in results))]
    for comparison in comparisons:
        sentence = comparison.protocol.sentence(comparison.config)
        note = " ".join([sentence, *_source(comparison)])
        notes.append(f"{comparison.config.env}: {note}")
    return notes


def _about_intervals(of_agents: bool) -> str:
    note = (
        "Intervals over episodes (percentile bootstrap) estimate what these policies would score "
        "on other episodes."
    )
    if not of_agents:
        return note + " They do not estimate what another training would score."
    return (
        f"{note} Intervals over new seeds (Student's t of the seeds' means) estimate the agent's "
        "mean score over training seeds, of which these seeds are a sample."
    )


def _about_verdicts(comparison: Comparison) -> str:
    abouts = {pair.evidence.about for pair in comparison.pairs}
    notes = [
        "Verdicts on policies apply to these policies, not to how they were trained: they test "
        "whether an episode of one policy scores higher than an episode of the other more often "
        "than lower (Brunner-Munzel and Mann-Whitney tests, which must agree). They do not test "
        "means: a few very low or very high returns move a mean, but not how often an episode "
        "scores higher."
    ]
    if AGENTS in abouts:
        notes.append(
            "Verdicts on agents apply to other training seeds as well: they test whether the "
            "seeds' mean returns differ (exact permutation test and Welch's t test, which must "
            "agree; against a single policy or an untrained baseline, only Welch's t test)."
        )
    if EACH_POLICY in abouts:
        notes.append(
            f"If an agent with fewer than {FEWEST_SEEDS} seeds is compared with a single policy or "
            "an untrained baseline, the verdict applies to these policies, and each of them must "
            "be better."
        )
    notes.append(
        "P-values are corrected for all pairs of the table (Holm): if all players were equal, any "
        f"significant difference would be found in at most {100 * ALPHA:g} % of such tables. A "
        "rank is 1 plus the number of players that are significantly better."
    )
    return " ".join(notes)


def _about_few_seeds(comparison: Comparison) -> list[str]:
    total = len(comparison.pairs)
    num = sum(not pair.evidence.can_decide for pair in comparison.pairs)
    if not num:
        return []
    pairs = counted(total, "pair")
    enough = f"{enough_seeds(1)} seeds of each are enough if one pair is compared"
    if total > 1:
        enough += f", {enough_seeds(total)} for any pair of this table"
    return [
        f"Too few training seeds: in {num} of {pairs}, the agents have so few seeds that no "
        "difference between them, however large, could be significant. This does not mean that "
        f"they are equal; {enough}."
    ]


def _source(comparison: Comparison) -> list[str]:
    known = reference(comparison.config.env)
    return [f"Reference: {known.source}."] if known else []
