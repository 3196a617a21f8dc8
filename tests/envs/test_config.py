"""Tests of `envs.config`: the ranges of its values."""

import dataclasses
import json

import pytest

from envs import EnvConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 0}, "height must be at least 1, got 0"),
        ({"width": -1}, "width must be at least 1"),
        ({"frame_stack": 0}, "frame_stack must be at least 1"),
        ({"frame_skip": 0}, "frame_skip must be at least 1"),
        ({"time_limit": 0}, "time_limit must be at least 1"),
        ({"delta_bins": 1}, "delta_bins must be at least 3"),
        ({"delta_bins": 4}, "delta_bins must be odd, so that 0 is one of the values; got 4"),
        ({"noop_max": -1}, "noop_max must be between 0 and 10,000, got -1"),
        ({"noop_max": 10_001}, "noop_max must be between 0 and 10,000, got 10001"),
        ({"targets_every": 0}, "targets_every must be at least 1, got 0"),
        ({"skill": 0}, "skill must be between 1 and 5"),
        ({"skill": 6}, "skill must be between 1 and 5"),
        ({"extra_channels": ("depth", "depth")}, "extra_channels lists one twice"),
        ({"shaping": ("damage", "damage")}, "shaping lists one twice"),
        ({"shaping": ("harm",)}, "unknown shaping 'harm'; choose from new_places, damage"),
        ({"buttons": ("ATTACK", "ATTACK")}, "buttons lists one twice"),
    ],
)
def test_refuses_values_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        EnvConfig(**options)


def test_smallest_values_are_in_range():
    config = EnvConfig(height=1, width=1, frame_stack=1, frame_skip=1, delta_bins=3, skill=1)
    assert (config.height, config.frame_skip, config.skill) == (1, 1, 1)


def test_what_a_file_holds_is_the_same_configuration():
    config = EnvConfig(env="CartPole-v1", env_kwargs=("sutton_barto_reward=True",))
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    assert EnvConfig(**stored) == config


def test_is_frozen_and_takes_no_positional_arguments():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EnvConfig().env = "take_cover"
    with pytest.raises(TypeError):
        EnvConfig("take_cover")


def test_whole_games_changes_the_ends_of_lives_only():
    config = EnvConfig(env="ALE/Pong-v5", terminal_on_life_loss=True, noop_max=30, fire_reset=True)
    whole = config.whole_games()
    assert dataclasses.replace(whole, terminal_on_life_loss=True) == config
    assert not whole.terminal_on_life_loss


def test_options_of_atari_and_those_that_cost_time_are_off_by_default():
    config = EnvConfig()
    assert config.noop_max == 0
    options = (config.max_pool, config.fire_reset, config.terminal_on_life_loss)
    assert not any(options)
    assert not config.enemy_in_view
    assert not config.depth_targets
    assert not config.kind_targets


def test_without_targets_changes_what_is_drawn_only():
    config = EnvConfig(depth_targets=True, kind_targets=True, frame_stack=3, targets_every=2)
    plain = config.without_targets()
    assert not plain.depth_targets
    assert not plain.kind_targets
    given = {"depth_targets": True, "kind_targets": True, "targets_every": 2}
    assert dataclasses.replace(plain, **given) == config
