"""Tests of `envs.own`: arguments and wrappers that a user gives an environment."""

import gymnasium as gym
import pytest

from envs import EnvConfig, EnvError, make
from envs.own import are_simple, as_pairs, check_wrappers, parse_kwargs, wrapped
from envs.registry import check_no_import, needs_trust

TOY = "tests.envs.toy"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("False", False),
        ("true", True),
        ("None", None),
        ("3", 3),
        ("-1e3", -1000.0),
        ("8x8", "8x8"),
        ("'3'", "3"),
        ('["SF", "FG"]', ["SF", "FG"]),
        ("(1, 2)", (1, 2)),
        ("a=b", "a=b"),
        ("", ""),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
    ],
)
def test_values_are_json_or_literals_or_texts(text, value):
    assert parse_kwargs([f"key={text}"]) == {"key": value}
    assert parse_kwargs(as_pairs({"key": value})) == {"key": value}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("is_slippery",), "env_kwargs are given as key=value, got 'is_slippery'"),
        (("a b=1",), "env_kwargs are given as key=value"),
        (("a=\x1b[2J",), "env_kwargs are given as key=value"),
        (("a=1", "a=2"), "env_kwargs gives a twice"),
        (("max_episode_steps=9",), "cannot set max_episode_steps; use --time-limit instead"),
        (("frameskip=2",), "use --frame-skip instead"),
        (("render_mode=human",), "cannot set render_mode; "),
    ],
)
def test_arguments_of_another_form_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message) as refusal:
        EnvConfig(env_kwargs=pairs)
    assert "\n" not in str(refusal.value)


def test_arguments_reach_the_environment():
    config = EnvConfig(env="FrozenLake-v1", env_kwargs=("is_slippery=False", "map_name=8x8"))
    env = make(config)
    assert env.observation_space.shape == (64,)
    env.reset(seed=0)
    assert env.step(2)[0].argmax() == 1  # Right is right, because nobody slips.
    assert hash(config) == hash(EnvConfig(**vars(config)))


def test_arguments_that_an_environment_does_not_have_are_refused_in_one_line():
    with pytest.raises(EnvError, match=r"^FrozenLake-v1 could not be made: .*'foo'") as refusal:
        make(EnvConfig(env="FrozenLake-v1", env_kwargs=("foo=1",)))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "trusted"),
    [
        ({"env": "CartPole-v1"}, False),
        ({"env": "basic"}, False),
        ({"env": "minigrid:MiniGrid-Empty-5x5-v0"}, True),
        ({"env": f"{TOY}:Shifted-v0"}, True),
        ({"env": "basic", "wrappers": (f"{TOY}:Tripled",)}, True),
        ({"env": "FrozenLake-v1", "env_kwargs": ("is_slippery=False", "map_name=8x8")}, False),
        ({"env": "MiniGrid-Empty-5x5-v0", "env_kwargs": ("size=100000",)}, True),
        ({"env": "Ant-v5", "env_kwargs": ("xml_file=/tmp/evil.xml",)}, True),
        ({"env": "FrozenLake-v1", "env_kwargs": ("desc=['SF']",)}, True),
    ],
)
def test_a_file_may_not_ask_for_code_or_for_arguments_that_may_be_harmful(options, trusted):
    config = EnvConfig(**options)
    assert needs_trust(config) == trusted
    if trusted:
        with pytest.raises(EnvError, match=f"^{config.env} is made .*, add --trust$"):
            check_no_import(config)
    else:
        check_no_import(config)
    assert are_simple(config.env_kwargs) or trusted


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        ("no_such_module:Wrapper", "it is neither installed nor in the current folder"),
        (
            "shaping.py:Bonus",
            "the module shaping.py cannot be imported: leave out .py, as in shaping$",
        ),
        (f"{TOY}:Absent", "has no wrapper called Absent"),
        (f"{TOY}:LENGTH", "has no wrapper called LENGTH"),
        (f"{TOY}:no_env", "no_env returned None, which is not an environment"),
        (f"{TOY}:failing", "failing failed: RuntimeError: of two lines"),
    ],
)
def test_wrappers_that_fail_are_refused_in_one_line(wrapper, message):
    with pytest.raises(EnvError, match=message) as refusal:
        make(EnvConfig(env="CartPole-v1", wrappers=(wrapper,)))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["Wrapper", "module:", ":Wrapper", "a/b:C", "a:b:c", ""])
def test_wrappers_are_named_with_their_module(name):
    with pytest.raises(ValueError, match=r"^wrappers are named as module:Wrapper, got "):
        check_wrappers([name])


def test_the_first_wrapper_is_the_innermost():
    env = wrapped(gym.make("CartPole-v1"), [f"{TOY}:Tripled", f"{TOY}:one_more"])
    env.reset(seed=0)
    assert env.step(0)[1] == 3 * 1 + 1


def test_wrappers_may_change_spaces_except_in_doom():
    flat = ("gymnasium.wrappers:FlattenObservation",)
    with pytest.raises(EnvError, match="FlattenObservation"):
        make(EnvConfig(env=f"{TOY}:Signed-v0"))
    assert make(EnvConfig(env=f"{TOY}:Signed-v0", wrappers=flat)).observation_space.shape == (2304,)
    with pytest.raises(EnvError, match=r"^basic wraps Doom so that it observes .* but not its sh"):
        make(EnvConfig(wrappers=flat))
