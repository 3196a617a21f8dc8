"""Ranges of an EnvConfig, and what it may be built from."""

import dataclasses

import pytest

from envs import EnvConfig


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"height": 0}, "height must be at least 1, got 0"),
        ({"width": -1}, "width must be at least 1"),
        ({"frame_stack": 0}, "frame_stack must be at least 1"),
        ({"frame_skip": 0}, "frame_skip must be at least 1"),
        ({"time_limit": 0}, "time_limit must be at least 1"),
        ({"delta_bins": 1}, "delta_bins must be at least 3"),
        ({"delta_bins": 4}, "delta_bins must be odd"),
        ({"noop_max": -1}, "noop_max must be between 0 and 10,000, got -1"),
        ({"noop_max": 10_001}, "noop_max must be between 0 and 10,000, got 10001"),
        ({"skill": 0}, "skill must be between 1 and 5"),
        ({"skill": 6}, "skill must be between 1 and 5"),
        ({"extra_channels": ("depth", "depth")}, "names one twice"),
    ],
)
def test_refuses_values_out_of_range(options, said):
    with pytest.raises(ValueError, match=said):
        EnvConfig(**options)


def test_smallest_values_are_in_range():
    config = EnvConfig(height=1, width=1, frame_stack=1, frame_skip=1, delta_bins=3, skill=1)
    assert (config.height, config.frame_skip, config.skill) == (1, 1, 1)


def test_is_frozen_and_takes_no_positional_arguments():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EnvConfig().env = "take_cover"
    with pytest.raises(TypeError):
        EnvConfig("take_cover")


def test_policies_are_judged_by_whole_games():
    config = EnvConfig(env="ALE/Pong-v5", terminal_on_life_loss=True, noop_max=30, fire_reset=True)
    whole = config.whole_games()
    assert dataclasses.replace(whole, terminal_on_life_loss=True) == config
    assert not whole.terminal_on_life_loss


def test_what_is_of_atari_alone_is_off_unless_it_is_asked_for():
    config = EnvConfig()
    assert config.noop_max == 0
    options = (config.max_pool, config.fire_reset, config.terminal_on_life_loss)
    assert not any(options)
