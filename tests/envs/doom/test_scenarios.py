"""Tests of `envs.doom.scenarios`: the table agrees with the engine's files and its real rewards."""

import math

import pytest

from envs import SCENARIOS, Scenario
from envs.doom.cfg import BUNDLED, read_cfg
from envs.doom.scenarios import FREEDOOM_BUTTONS, FREEDOOM_MAPS, camel_case
from tests.envs.raw import doom, noop, random_actions

# Scenarios whose .cfg sets no time limit; the table does.
UNTIMED = {"defend_the_line", "take_cover"}
ENGINES_SKILL = 3  # if a .cfg sets none
# For several players, without a WAD, or with a WAD that is sold.
NOT_LISTED = {"cig", "multi", "multi_duel", "oblige", "doom", "doom2", *FREEDOOM_MAPS}


def test_every_bundled_scenario_for_one_player_is_in_the_table():
    assert set(SCENARIOS) == {path.stem for path in BUNDLED.glob("*.cfg")} - NOT_LISTED


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_table_agrees_with_the_cfg(name):
    scenario, spec = SCENARIOS[name], read_cfg(BUNDLED / f"{name}.cfg")
    assert scenario.name == name
    assert scenario.buttons == spec.buttons
    assert scenario.skill == spec.settings.get("doom_skill", ENGINES_SKILL)
    assert spec.time_limit == (None if name in UNTIMED else scenario.time_limit)
    assert ("the .cfg sets no time limit" in scenario.note) == (name in UNTIMED)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_entry_is_complete(name):
    scenario = SCENARIOS[name]
    assert isinstance(scenario, Scenario)
    assert scenario.rewards
    assert math.isfinite(scenario.noop)
    assert math.isfinite(scenario.random)
    if scenario.reference is not None:
        assert scenario.reference.source
        assert math.isfinite(scenario.reference.mean)


@pytest.mark.parametrize("game", FREEDOOM_MAPS)
def test_freedoom_has_the_buttons_of_its_cfg(game):
    assert read_cfg(BUNDLED / f"{game}.cfg").buttons == FREEDOOM_BUTTONS


@pytest.mark.parametrize(
    ("name", "camel"), [("basic", "Basic"), ("defend_the_center", "DefendTheCenter")]
)
def test_camel_case(name, camel):
    assert camel_case(name) == camel


def final_statistics(name: str, actions=None, seed: int = 0, **options) -> dict[str, float]:
    """Play one episode and return its statistics; by default, do nothing in it."""
    with doom(name, **options) as env:
        env.reset(seed=seed)
        for action in actions(env) if actions else [noop(env)] * 10_000:
            _, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                return {**info["statistics"], "terminated": terminated}
    raise AssertionError("the episode did not end")


@pytest.mark.parametrize(
    "name",
    ["basic", "basic_audio", "basic_notifications", "simpler_basic", "learning", "rocket_basic"],
)
def test_the_living_reward_of_basic_is_minus_one_per_tic(name):
    assert final_statistics(name)["r"] == -300


def test_the_rewards_of_basic_are_106_for_the_kill_and_minus_5_per_shot():
    with doom("basic", frame_skip=1) as env:
        _, info = env.reset(seed=3)
        shots, kills = 0, 0
        for action in [a for a in random_actions(env, 75) for _ in range(4)]:
            bullets = info["AMMO2"]
            _, reward, terminated, _, info = env.step(action)
            if terminated:
                break
            shot, kill = bullets > info["AMMO2"], reward > 0
            assert reward == -1 - 5 * shot + 106 * kill
            shots, kills = shots + shot, kills + kill
        assert terminated
        assert kills == info["statistics"]["kills"] == 1
        assert shots > 1


def test_the_reward_of_take_cover_is_one_per_tic():
    episode = final_statistics("take_cover")
    assert episode["terminated"]
    # There is no reward for the tic of death.
    assert episode["frames"] - 5 < episode["r"] < episode["frames"]


@pytest.mark.parametrize("name", ["health_gathering", "health_gathering_supreme"])
def test_the_penalty_for_death_in_health_gathering_is_a_hundred(name):
    episode = final_statistics(name)
    assert episode["terminated"]
    assert episode["frames"] - 105 < episode["r"] < episode["frames"] - 100 + 5


def test_the_rewards_of_defend_the_center_are_one_per_kill_and_minus_one_for_death():
    episode = final_statistics("defend_the_center")
    assert (episode["r"], episode["kills"]) == (-1, 0)
    episode = final_statistics("defend_the_center", lambda env: random_actions(env, 1000), seed=1)
    assert episode["kills"] > 0
    assert episode["r"] == episode["kills"] - 1


def test_the_living_reward_of_my_way_home():
    episode = final_statistics("my_way_home")
    assert not episode["terminated"]
    assert episode["r"] == pytest.approx(-0.0001 * 2100)


def test_the_living_reward_of_predict_position():
    assert final_statistics("predict_position")["r"] == pytest.approx(-0.3)


def test_the_penalty_for_death_in_deadly_corridor_is_a_hundred():
    episode = final_statistics("deadly_corridor")
    assert episode["terminated"]
    assert -125 < episode["r"] < -100
