"""Tests of `envs.doom.variables`."""

import numpy as np

from envs.doom.variables import scales


def test_variables_have_the_scale_of_their_name_or_its_prefix():
    names = ["HEALTH", "AMMO2", "SELECTED_WEAPON", "SELECTED_WEAPON_AMMO", "WEAPON3", "POSITION_X"]
    assert scales(names).tolist() == [100, 50, 10, 50, 1, 1000]
    assert scales(names).dtype == np.float32


def test_other_variables_have_a_common_scale():
    assert scales(["KILLCOUNT", "FRAGCOUNT"]).tolist() == [10, 10]
    assert scales([]).shape == (0,)
