"""Tests of `envs.doom.shaping`."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from itertools import pairwise

import pytest

from envs.config import EnvConfig
from envs.doom.players import KINDS
from envs.doom.shaping import SHAPING, Damage, NewPlaces
from envs.errors import EnvError
from envs.registry import canonical_name, make

SMALL = {"height": 30, "width": 40}


def played(config, seed=3):
    """Play an episode of random actions, and return what was paid, and facts of each env step."""
    with contextlib.closing(make(config)) as env:
        env.reset(seed=seed)
        env.action_space.seed(seed)
        doom = env.unwrapped
        facts, rewards, ended = [(doom.pose(), doom.episode_statistics())], [], False
        while not ended:
            _, reward, terminated, truncated, info = env.step(env.action_space.sample())
            rewards.append(reward)
            facts.append((doom.pose(), doom.episode_statistics()))
            ended = terminated or truncated
    return rewards, facts, info["statistics"]["r"]


def test_new_places_are_paid_once():
    plain = EnvConfig(env="maps:maze", **SMALL)
    native, facts, total = played(plain)
    rewards, _, reported = played(EnvConfig(env="maps:maze", shaping=("new_places",), **SMALL))
    entered, expected = set(), []
    for pose, _ in facts:
        place = int(pose.x // NewPlaces.side), int(pose.y // NewPlaces.side)
        expected.append(0.0 if place in entered else NewPlaces.each)
        entered.add(place)
    assert len(entered) > 3
    added = [got - paid for got, paid in zip(rewards, native, strict=True)]
    assert added == pytest.approx(expected[1:])  # The start is not paid.
    assert reported == total, "statistics are native"


def test_damage_is_paid_when_dealt_and_costs_when_taken():
    native, facts, total = played(EnvConfig(env="defend_the_line", **SMALL))
    rewards, _, reported = played(EnvConfig(env="defend_the_line", shaping=("damage",), **SMALL))
    dealt, taken = (
        [after[name] - before[name] for (_, before), (_, after) in pairwise(facts)]
        for name in ("damage", "damage_taken")
    )
    assert max(dealt) > 0
    assert max(taken) > 0
    added = [got - paid for got, paid in zip(rewards, native, strict=True)]
    pairs = zip(dealt, taken, strict=True)
    assert added == pytest.approx([Damage.dealt * d - Damage.taken * t for d, t in pairs])
    assert reported == total == pytest.approx(sum(native))


@pytest.mark.parametrize("name", SHAPING)
def test_evaluations_are_without_it(name):
    config = EnvConfig(env="maps:arena", shaping=(name,), **SMALL)
    assert config.whole_games() == EnvConfig(env="maps:arena", **SMALL).whole_games()


def test_all_are_added():
    plain, both = (
        played(EnvConfig(env="maps:arena", shaping=names, **SMALL))[0]
        for names in ((), ("new_places", "damage"))
    )
    (places, damage) = (
        played(EnvConfig(env="maps:arena", shaping=(name,), **SMALL))[0]
        for name in ("new_places", "damage")
    )
    one, other = sum(places) - sum(plain), sum(damage) - sum(plain)
    assert one > 0
    assert other != 0
    assert sum(both) - sum(plain) == pytest.approx(one + other)


@pytest.mark.parametrize("env", ["CartPole-v1", f"players:{next(iter(KINDS))}"])
def test_elsewhere_it_is_refused(env):
    with pytest.raises(EnvError, match="shaping is "):
        make(EnvConfig(env=canonical_name(env), shaping=("damage",)))


def test_what_is_reported_beneath_a_wrapper_is_native():
    config = EnvConfig(env="maps:maze", shaping=("new_places",), **SMALL)
    wrapped = replace(config, wrappers=("gymnasium.wrappers:OrderEnforcing",))
    assert played(wrapped) == played(config)
    native = played(replace(wrapped, native_reward=True))
    assert native[0] == played(replace(config, shaping=()))[0]
