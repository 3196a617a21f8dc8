"""Tests of `envs.actions`: any action of a policy becomes an element of the space."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.distributions import ActionHead, num_draws
from envs import EnvError
from envs.actions import Actions, check_actions
from tests.envs.toy import Toy


def adapted(space):
    return Actions(Toy(space))


@pytest.mark.parametrize(
    ("space", "given", "taken"),
    [
        (spaces.Discrete(3, start=25), 2, 27),
        (spaces.Discrete(3, start=-1), 0, -1),
        (spaces.MultiDiscrete([3], start=[25]), [2], [27]),
        (spaces.MultiDiscrete([2, 3], start=[-5, 1]), [0, 2], [-5, 3]),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), [1, 2, 3, 4], [[1, 2], [3, 4]]),
        (spaces.MultiBinary(3), [1, 0, 1], [1, 0, 1]),
        (spaces.MultiBinary([2, 3]), [1, 0, 1, 0, 0, 1], [[1, 0, 1], [0, 0, 1]]),
        (spaces.Box(0, 10, (2,), np.int64), [-1, 0.11], [0, 6]),
        (spaces.Box(0, 255, (1,), np.uint8), [1], [255]),
        (spaces.Box(-np.inf, np.inf, (2,), np.int32), [2.6, -1e30], [3, -(2**31)]),
        (spaces.Box(-1, 1, (2, 2), np.float32), [1, 2, -1, 0.5], [[1, 1], [-1, 0.5]]),
        (spaces.Box(-2, 2, (), np.float32), [0.5], 1),
        (spaces.Box(0, np.inf, (2,), np.float32), [-3, 7], [0, 7]),
    ],
    ids=str,
)
def test_actions_are_shifted_rescaled_rounded_and_reshaped(space, given, taken):
    env = adapted(space)
    assert len(env.action_space.shape or ()) <= 1
    action = env.action(np.asarray(given))
    np.testing.assert_array_equal(action, taken)
    assert space.contains(action)


NUMBERS = st.sampled_from(["float16", "float32", "float64", "int8", "uint8", "int32", "int64"])
SHAPES = st.sampled_from([(), (1,), (3,), (2, 2)])


@st.composite
def action_spaces(draw):
    """Draw any action space that is supported."""
    shape, kind = draw(SHAPES), draw(st.sampled_from(["one", "several", "switches", "numbers"]))
    start = draw(st.integers(-100, 100))
    if kind == "one":
        return spaces.Discrete(draw(st.integers(1, 20)), start=start)
    if kind == "several":
        size = draw(st.integers(1, 20))
        shape = shape or (1,)
        return spaces.MultiDiscrete(np.full(shape, size), start=np.full(shape, start))
    if kind == "switches":
        return spaces.MultiBinary(list(shape) or 1)
    dtype = np.dtype(draw(NUMBERS))
    info = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    ends = [0, 1, 7, 100, info.max, info.min, np.inf, -np.inf, -1, -3]
    if dtype.kind == "f":
        ends += [0.1, -0.7, float(info.tiny)]
    if dtype.kind == "u":
        ends = [end for end in ends if 0 <= end < np.inf]
    low, high = sorted((draw(st.sampled_from(ends)), draw(st.sampled_from(ends))))
    if low == high or low == np.inf or high == -np.inf:
        low, high = 0, 1
    return spaces.Box(low, high, shape, dtype.type)


@settings(max_examples=100, deadline=None)
@example(space=spaces.Box(2**63 - 1, 2**63 - 1, (), np.int64), seed=0, spread=0.0)
@given(space=action_spaces(), seed=st.integers(0, 1000), spread=st.sampled_from([0.0, 1.0, 1e30]))
def test_whatever_a_policy_chooses_is_in_the_space(space, seed, spread):
    env = adapted(space)
    check_actions(space, "it")
    torch.manual_seed(seed)
    head = ActionHead(env.action_space, 4)
    distribution = head(torch.ones(1, 4))
    draws = torch.rand(1, num_draws(env.action_space))
    for chosen in (distribution.sample(draws), distribution.mode()):
        action = chosen[0].detach().numpy()
        if isinstance(env.action_space, spaces.Discrete):
            action = int(action)
        elif isinstance(env.action_space, spaces.Box):
            action = action * np.float32(spread)
        assert space.contains(env.action(action)), env.action(action)
    assert space.contains(env.action(env.action_space.sample()))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Dict({"a": spaces.Discrete(2)}),
        spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2))),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Box(-1, 1, (0,), np.float32),
    ],
    ids=lambda space: type(space).__name__,
)
def test_other_actions_are_refused_in_one_line(space):
    with pytest.raises(
        EnvError, match=r"^it has the action space .* which is not supported; "
    ) as e:
        check_actions(space, "it")
    assert "\n" not in str(e.value)
    assert isinstance(space, gym.Space)
