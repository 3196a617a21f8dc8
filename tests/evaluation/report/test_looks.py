"""Tests of `evaluation.report.looks`."""

from __future__ import annotations

import pytest

from evaluation.report.looks import COLOURS, looks_of, renamed, short_names


def test_a_policy_has_one_colour_and_its_modes_differ_otherwise():
    looks = looks_of(["b (greedy)", "b (sampled)", "a (sampled)", "random"])
    assert {looks[name].colour for name in ("b", "b (greedy)", "b (sampled)")} == {COLOURS[1]}
    assert looks["a (sampled)"].colour == COLOURS[0]
    assert looks["b (greedy)"].dash != looks["b (sampled)"].dash
    assert (looks["b (greedy)"].is_filled, looks["b (sampled)"].is_filled) == (False, True)
    assert looks["random"].colour not in COLOURS
    with pytest.raises(ValueError, match="nothing to draw"):
        looks_of([])


def test_only_long_names_lose_the_folder_that_all_share():
    short = ["zoo/basic (sampled)", "zoo/basic (greedy)", "noop"]
    assert short_names(short) == {name: name for name in short}
    folder = "/home/someone/experiments/of/last/week/runs/basic"
    names = [f"{folder}/ppo (sampled)", f"{folder}/old/a2c-seed0", "noop"]
    assert list(short_names(names).values()) == ["ppo (sampled)", "old/a2c-seed0", "noop"]
    # A name that would be that of a baseline is not shortened.
    names = [f"{folder}/random", "random"]
    assert short_names(names) == {name: name for name in names}
    assert renamed({"x/a": 1}, {"x/a": "a"}) == {"a": 1}
