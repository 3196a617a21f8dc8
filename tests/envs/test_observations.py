"""Tests of `envs.observations`: observations arrive unchanged, or are refused."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from envs import EnvError
from envs.errors import ContractError
from envs.observations import Observations

BYTES = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
IMAGES = {
    "bytes": (spaces.Box(0, 255, (48, 64, 3), np.uint8), BYTES),
    "two axes": (spaces.Box(0, 255, (48, 64), np.uint8), BYTES[..., 0]),
    "one channel": (spaces.Box(0, 255, (48, 64, 1), np.uint8), BYTES[..., :1]),
    "channels first": (spaces.Box(0, 255, (3, 48, 64), np.uint8), BYTES.transpose(2, 0, 1)),
    "four channels": (spaces.Box(0, 255, (48, 64, 4), np.uint8), np.tile(BYTES, 2)[..., :4]),
    "stacked first": (
        spaces.Box(0, 255, (4, 48, 64), np.uint8),
        np.tile(BYTES, 2)[..., :4].transpose(2, 0, 1),
    ),
    "floats to 1": (spaces.Box(0, 1, (48, 64, 3), np.float32), (BYTES / 255).astype(np.float32)),
    "doubles to 1": (spaces.Box(0, 1, (3, 48, 64), np.float64), BYTES.transpose(2, 0, 1) / 255),
    "floats to 255": (spaces.Box(0, 255, (48, 64, 3), np.float32), BYTES.astype(np.float32)),
    "integers": (spaces.Box(0, 255, (48, 64, 3), np.int32), BYTES.astype(np.int32)),
    "lists": (spaces.Box(0, 255, (48, 64, 3), np.uint8), BYTES.tolist()),
}


class Shown(gym.Env):
    """Observes what it is given."""

    action_space = spaces.Discrete(2)

    def __init__(self, space, observation=None):
        self.observation_space, self.shown = space, observation

    def reset(self, *, seed=None, options=None):
        return self.shown, {}


def look(space, observation):
    """Return an observation as arranged, and its space."""
    env = Observations(Shown(space, observation), "it")
    return env.reset()[0], env.observation_space


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("place", ["alone", "in a Dict", "deep"])
def test_every_kind_of_image_is_the_same_image(kind, place):
    space, image = IMAGES[kind]
    arm = spaces.Box(-1, 1, (2,), np.float32)
    if place == "in a Dict":
        space, image = spaces.Dict({"eye": space, "arm": arm}), {"eye": image, "arm": [0.5, -1]}
    if place == "deep":
        space, image = spaces.Tuple((arm, spaces.Dict({"a": space}))), ([0.5, -1], {"a": image})
    seen, seen_space = look(space, image)
    assert seen_space.contains(seen)
    if place != "alone":
        np.testing.assert_array_equal(seen["variables"], [0.5, -1])
        seen = seen["screen"]
    expected = np.tile(BYTES, 2)[..., :4] if kind in ("four channels", "stacked first") else BYTES
    if kind in ("two axes", "one channel"):
        expected = BYTES[..., :1].reshape(seen.shape)
    np.testing.assert_array_equal(seen, expected)
    assert seen.dtype == np.uint8
    assert seen.flags["C_CONTIGUOUS"]


NUMBERS = {
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "doubles": spaces.Box(-np.inf, np.inf, (3,), np.float64),
    "halves": spaces.Box(-1, 1, (3,), np.float16),
    "no axis": spaces.Box(-1, 1, (), np.float32),
    "nothing beside something": spaces.Tuple((spaces.Box(-1, 1, (0,)), spaces.Discrete(2))),
    "grid": spaces.Box(0, 255, (7, 7, 3), np.uint8),
    "one of": spaces.Discrete(4, start=-2),
    "several": spaces.MultiDiscrete([2, 3], start=[5, -1]),
    "switches": spaces.MultiBinary([2, 3]),
    "dictionary": spaces.Dict(b=spaces.Discrete(2), a=spaces.Dict(c=spaces.Box(-1, 1, (2, 2)))),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(2), spaces.Box(-1, 1, (2,)))),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_are_what_gymnasium_flattens(kind):
    space = NUMBERS[kind]
    space.seed(0)
    for _ in range(5):
        sample = space.sample()
        seen, seen_space = look(space, sample)
        assert seen_space.contains(seen)
        assert seen.dtype == np.float32
        np.testing.assert_array_equal(seen, spaces.flatten(space, sample).astype(np.float32))


@pytest.mark.parametrize(
    ("space", "observation", "left_out"),
    [
        (
            spaces.Dict(a=spaces.Discrete(2), said=spaces.Text(5)),
            {"a": 1, "said": 9},
            "said (Text)",
        ),
        (
            spaces.Tuple((spaces.Discrete(2), spaces.Dict(x=spaces.Sequence(spaces.Discrete(2))))),
            (1, {}),
            "1.x (Sequence)",
        ),
    ],
)
def test_parts_that_are_no_numbers_are_left_out_by_name(space, observation, left_out):
    env = Observations(Shown(space, observation), "it")
    assert env.left_out == (left_out,)
    np.testing.assert_array_equal(env.reset()[0], [0, 1])


CAMERA = spaces.Box(0, 255, (48, 64, 3), np.uint8)
REFUSED = {
    "text": (spaces.Text(5), "is not supported; supported are numbers, an image"),
    "texts": (spaces.Dict(a=spaces.Text(5)), "is not supported; supported are numbers, an image"),
    "two images": (spaces.Dict(a=CAMERA, b=CAMERA), "at most one such image$"),
    "film": (spaces.Box(0, 255, (4, 48, 64, 3), np.uint8), "--frame-stack stacks the frames"),
    "long axes": (spaces.Box(0, 255, (48, 64, 48), np.uint8), "whose shape is not supported; "),
    "channels in the middle": (spaces.Box(0, 255, (48, 3, 64), np.uint8), "whose shape is not"),
    "signed": (
        spaces.Box(-1, 1, (48, 64, 3), np.float32),
        "whose values are not supported; .*Flat",
    ),
    "unbounded": (spaces.Box(-np.inf, np.inf, (48, 64)), "whose values are not supported; .*Flatt"),
    "deep": (spaces.Box(0, 2**16 - 1, (48, 64), np.uint16), "whose values are not supported; "),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_supported_is_refused_in_one_line(kind):
    space, message = REFUSED[kind]
    with pytest.raises(EnvError, match=f"^it observes .*{message}") as refusal:
        Observations(Shown(space), "it")
    assert "\n" not in str(refusal.value)


VECTOR, ONE = (
    spaces.Box(-1, 1, (3,), np.float32),
    spaces.Dict(n=spaces.Discrete(3), v=spaces.Box(-1, 1)),
)
BREACHES = {
    "another dtype": (CAMERA, BYTES / 255, "float64, its space says uint8"),
    "too large": (CAMERA, BYTES.astype(int) + 1, "int64, its space says uint8"),
    "broadcast": (VECTOR, np.zeros(1, np.float32), r"shape \(1,\), its space says \(3,\)"),
    "longer": (VECTOR, [0.0] * 5, r"shape \(5,\), its space says \(3,\)"),
    "ragged": (VECTOR, [[0.0], 1.0], r"lists of different lengths, its space says shape \(3,\)"),
    "words": (VECTOR, ["a", "b", "c"], "<U1, its space says float32"),
    "larger": (
        spaces.Box(0, 100, (3,), np.int16),
        np.array([32768, 0, 0]),
        "int64, its space says int16",
    ),
    "none": (VECTOR, None, r"shape \(\), its space says"),
    "another choice": (ONE, {"n": -1, "v": [0]}, r"-1 in n, its space says Discrete\(3\)"),
    "a missing part": (ONE, {"n": 1}, "nothing called v, its space has it"),
    "no dictionary": (ONE, 5, "nothing called n, its space has it"),
    "brighter": (IMAGES["floats to 1"][0], BYTES, "values of 0 to 255, its space says 0 to 1"),
    "darker": (
        IMAGES["integers"][0],
        BYTES.astype(int) - 9,
        "values of -9 to 246, .* says 0 to 255",
    ),
}


@pytest.mark.parametrize("kind", BREACHES)
def test_observations_that_are_not_as_their_space_says_are_refused_by_name(kind):
    space, observation, message = BREACHES[kind]
    with pytest.raises(ContractError, match=f"^it observes {message}") as refusal:
        look(space, observation)
    assert "\n" not in str(refusal.value)


def test_an_image_of_nan_is_a_fault_that_may_pass():
    image = np.full((48, 64, 3), np.nan, np.float32)
    with pytest.raises(EnvError, match="NaN or infinity") as fault:
        look(IMAGES["floats to 1"][0], image)
    assert not isinstance(fault.value, ContractError)


@settings(max_examples=100, deadline=None)
@given(
    observation=arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.complex64]),
        arrays.array_shapes(max_dims=2, max_side=3),
    ),
    dtype=st.sampled_from([np.float32, np.float64, np.uint8, np.int16]),
)
def test_any_array_is_seen_as_it_is_or_refused(observation, dtype):
    space = spaces.Box(0, 100, (3,), dtype)
    try:
        seen, _ = look(space, observation)
    except ContractError:
        return
    assert observation.shape == (3,)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(seen, observation.astype(np.float32))
