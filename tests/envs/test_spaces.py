"""Tests of `envs.spaces`."""

import numpy as np
import pytest
from gymnasium import spaces

from envs.spaces import observation_parts

BOX = spaces.Box(0, 255, (4, 6, 1), np.uint8)


def test_a_plain_box_has_one_part():
    assert observation_parts(BOX) == {"obs": BOX}


def test_the_parts_of_a_dict_are_its_own():
    vector = spaces.Box(-1, 1, (3,))
    assert observation_parts(spaces.Dict({"screen": BOX, "variables": vector})) == {
        "screen": BOX,
        "variables": vector,
    }


def test_other_parts_than_boxes_are_a_programming_error():
    with pytest.raises(AssertionError):
        observation_parts(spaces.Discrete(2))
