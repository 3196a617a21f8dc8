"""Tests of `agents.search_space`, and of the search spaces of agents."""

from __future__ import annotations

import dataclasses

import pytest

from agents import AGENTS
from agents.search_space import Choice, Range


def test_a_range_is_widened_to_include_a_value():
    narrow = Range(1e-4, 1e-2, log=True)
    assert narrow.including(1e-3) == narrow
    assert narrow.including(1e-6) == Range(1e-6, 1e-2, log=True)
    assert narrow.including(1.0) == Range(1e-4, 1.0, log=True)


def test_a_choice_is_extended_by_a_new_value():
    few = Choice((64, 128))
    assert few.including(128) is few
    assert few.including(None) == Choice((None, 64, 128))


def test_ranges_and_choices_as_text():
    assert str(Range(1e-5, 0.01)) == "1e-05 to 0.01"
    assert str(Choice((False, 2))) == "False, 2"


def some_values(values):
    return (values.low, values.high) if isinstance(values, Range) else values.values


@pytest.mark.parametrize("agent", AGENTS)
def test_every_value_in_the_search_space_of_an_agent_is_valid(agent):
    kind = AGENTS[agent][0]
    default = kind()
    assert kind.search_space
    for name, values in kind.search_space.items():
        for value in some_values(values):
            assert getattr(dataclasses.replace(default, **{name: value}), name) == value


@pytest.mark.parametrize("agent", AGENTS)
def test_logarithmic_ranges_are_positive(agent):
    spaces = AGENTS[agent][0].search_space.values()
    assert all(values.low > 0 for values in spaces if isinstance(values, Range) and values.log)


def test_fields_that_an_agent_does_not_use_are_not_searched():
    assert "gae_lambda" not in AGENTS["reinforce"][0].search_space
    assert "clip_coef" not in AGENTS["a2c"][0].search_space
