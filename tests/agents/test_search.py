"""Tests of `agents.search`, and of the search spaces that agents name."""

from __future__ import annotations

import dataclasses

import pytest

from agents import AGENTS
from agents.search import Choice, Range


def test_a_range_is_widened_by_what_lies_outside():
    narrow = Range(1e-4, 1e-2, log=True)
    assert narrow.including(1e-3) == narrow
    assert narrow.including(1e-6) == Range(1e-6, 1e-2, log=True)
    assert narrow.including(1.0) == Range(1e-4, 1.0, log=True)


def test_a_choice_is_widened_by_what_is_not_in_it():
    few = Choice((64, 128))
    assert few.including(128) is few
    assert few.including(None) == Choice((None, 64, 128))


def test_they_can_be_said_in_words():
    assert str(Range(1e-5, 0.01)) == "1e-05 to 0.01"
    assert str(Choice((False, 2))) == "False, 2"


def some_values(values):
    return (values.low, values.high) if isinstance(values, Range) else values.values


@pytest.mark.parametrize("agent", AGENTS)
def test_every_value_in_an_agents_space_makes_a_valid_configuration(agent):
    kind = AGENTS[agent][0]
    default = kind()
    assert kind.search_space
    for name, values in kind.search_space.items():
        for value in some_values(values):
            assert getattr(dataclasses.replace(default, **{name: value}), name) == value


@pytest.mark.parametrize("agent", AGENTS)
def test_a_range_of_logarithms_is_positive(agent):
    spaces = AGENTS[agent][0].search_space.values()
    assert all(values.low > 0 for values in spaces if isinstance(values, Range) and values.log)


def test_what_an_agent_does_not_use_is_not_searched():
    assert "gae_lambda" not in AGENTS["reinforce"][0].search_space
    assert "clip_coef" not in AGENTS["a2c"][0].search_space
