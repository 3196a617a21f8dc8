"""Tests of `commands.options`."""

from __future__ import annotations

import dataclasses

import pytest

import evaluate
from commands.commandline import UsageError, parse
from commands.options import ScoringOptions
from docs.flags import help_of, read_help
from evaluation.compare import MODES
from evaluation.seeds import EVALUATION, SCORING


def parse_options(*words):
    return parse(ScoringOptions, words, program="prog")


def test_the_defaults_are_those_of_the_documentation():
    options = parse_options()
    assert options.episodes == 100
    assert options.protocol.seed == SCORING
    assert options.modes == list(MODES) == ["sampled", "greedy"]
    assert not options.trust


def test_options_make_a_protocol():
    words = ["--episodes", "7", "--seed", "3", "--num-envs", "2", "--device", "cpu", "--greedy"]
    options = parse_options(*words)
    protocol = options.protocol
    assert (protocol.episodes, protocol.seed, protocol.num_envs, protocol.device) == (
        7,
        3,
        2,
        "cpu",
    )
    assert options.modes == ["greedy"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--episodes", "0"], "episodes must be at least 1, got 0"),
        (["--num-envs", "-3"], "num_envs must be at least 1, got -3"),
        (["--seed", "-1"], "seed must be between 0 and 2^29 - 1, got -1"),
        (["--seed", str(EVALUATION)], "seed must be between 0 and 2^29 - 1, got 536870912"),
        (
            ["--seed", str(EVALUATION - 2), "--episodes", "3"],
            "3 episodes from seed 536870910 on would be beyond 2^29 - 1, the last one for scoring",
        ),
        (["--json", "."], "--json . is a folder; name a file"),
    ],
    ids=" ".join,
)
def test_ranges_are_checked(words, expected):
    with pytest.raises(UsageError) as refusal:
        parse_options(*words)
    assert str(refusal.value) == expected


@pytest.mark.parametrize("kind", evaluate.RUN, ids=lambda kind: kind.__name__)
def test_every_option_of_every_command_is_explained(kind):
    name = kind.__name__.removesuffix("Options").lower()
    groups = read_help(help_of("evaluate", name, "--help"))
    shown = [flag for flags in groups.values() for flag in flags]
    assert len(shown) == len(dataclasses.fields(kind))
    for flag in shown:
        assert len(flag.text.split()) > 1, flag
