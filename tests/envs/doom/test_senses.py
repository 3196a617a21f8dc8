"""Tests of `envs.doom.senses`, and of environments that observe sound and messages."""

import contextlib

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import EnvConfig, EnvError
from envs.doom import senses
from envs.doom.env import DoomEnv
from envs.doom.senses import TEXT_LENGTH, VOCABULARY, token, write_text

needs_openal = pytest.mark.skipif(
    not senses.has_openal(), reason="OpenAL is not installed (package libopenal1)"
)


def make_env(env, **options):
    return contextlib.closing(DoomEnv(EnvConfig(env=env, height=30, width=40, **options)))


def play(env, seed, num_steps, actions_seed=0):
    """Return copies of the parts of the observations of an episode."""
    rng = np.random.default_rng(actions_seed)
    observations = [env.reset(seed=seed)[0]]
    for _ in range(num_steps):
        observation, _, terminated, truncated, _ = env.step(rng.integers(env.action_space.n))
        observations.append(observation)
        if terminated or truncated:
            break
    return [{name: part.copy() for name, part in o.items()} for o in observations]


def assert_same(one, other):
    assert len(one) == len(other)
    for ours, theirs in zip(one, other, strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


# Text.


def tokens_of(text):
    tokens = np.full(TEXT_LENGTH, -1, np.int32)
    write_text(text, tokens)
    return tokens.tolist()


def test_a_text_is_one_token_for_each_word():
    assert tokens_of("Shoot: Cacodemon\n") == [token("shoot"), token("cacodemon"), *[0] * 14]
    assert tokens_of("") == tokens_of(None) == tokens_of("...") == [0] * 16


def test_the_last_words_of_a_long_text_are_kept():
    words = [f"w{i}" for i in range(40)]
    assert tokens_of(" ".join(words)) == [token(word) for word in words[-TEXT_LENGTH:]]


def test_tokens_do_not_depend_on_the_process_and_are_in_range():
    assert (token("shoot"), token("cacodemon")) == (260, 837)
    assert len({token(word) for word in ("shoot", "cacodemon", "doomimp", "demon")}) == 4
    assert all(0 < token(str(i)) < VOCABULARY for i in range(5000))


def test_the_message_names_a_target_in_every_episode():
    targets = {token(name): name for name in ("cacodemon", "demon", "doomimp")}
    seen = set()
    with make_env("basic_notifications", notifications=True) as env:
        check_env(env, skip_render_check=True)
        for seed in range(6):
            texts = [o["notifications"] for o in play(env, seed, 8)]
            shown = [text for text in texts if text.any()]
            assert {text[0] for text in shown} == {token("shoot")}
            (target,) = {text[1] for text in shown}
            seen.add(targets[target])
    assert len(seen) > 1


# Sound.


@needs_openal
def test_the_side_of_the_monster_is_heard():
    with make_env("basic_audio", sound=True) as env:
        check_env(env, skip_render_check=True)
        louder = []
        for seed in (0, 1, 2, 3):  # At its left, right, left, right.
            observation, _ = env.reset(seed=seed)
            left, right = np.square(observation["sound"]).mean(axis=0)
            louder.append("left" if left > right else "right")
    assert louder == ["left", "right", "left", "right"]


@needs_openal
def test_what_is_heard_and_read_is_a_function_of_seed_and_actions():
    options = {"sound": True, "notifications": True, "variables": True}
    with make_env("defend_the_center", **options) as env:
        assert set(env.observation_space) == {"screen", "variables", "sound", "notifications"}
        first = play(env, 7, 12)
        play(env, 3, 5, actions_seed=1)
        again = play(env, 7, 12)
    with make_env("defend_the_center", **options) as new:
        elsewhere = play(new, 7, 12)
    assert any(o["sound"].any() for o in first)
    assert first[0]["sound"].shape == (1260, 2)
    assert_same(first, again)
    assert_same(first, elsewhere)


@needs_openal
def test_a_frame_skip_of_one_hears_one_frame():
    with make_env("basic_audio", sound=True, frame_skip=1) as env:
        observation, _ = env.reset(seed=0)
        assert observation["sound"].shape == (315, 2)
        assert np.abs(observation["sound"]).max() <= 1


def test_without_openal_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(senses, "_OPENAL", ("no-such-library.so",))
    with pytest.raises(EnvError, match="observing sound needs OpenAL, which is not installed"):
        DoomEnv(EnvConfig(env="basic", sound=True))
