"""Arranges observations of any space as an image, a vector, or a dictionary of both.

The parts of nested dictionaries and tuples are found by their paths. Numbers and categories become
one float32 vector, one part becomes the image, and parts of other kinds (texts, sequences, graphs)
are left out. What an environment returns is checked against its space: a part of another shape or
dtype would otherwise be broadcast, or turned into zeros, without an error.

Axes: H, W, C an image's height, width and channels; D numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.errors import ContractError, EnvError

# Boxes with two sides of at least this many elements are images, smaller ones grids of categories.
_SMALLEST_IMAGE = 32
_NUMBERS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_HINT = (
    "if it is an image, a wrapper can make it (height, width, channels) with values of 0 to 1 or 0 "
    "to 255; if it is not, add --wrappers gymnasium.wrappers:FlattenObservation"
)
_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Part:
    """One part of an observation: a space that is neither a Dict nor a Tuple.

    Attributes:
        env: name of the environment, for messages.
        path: keys and indices that lead to it; empty if it is the whole observation.
        space: its space.
    """

    env: str
    path: _Path
    space: spaces.Space[Any]

    @property
    def name(self) -> str:
        """Its path as text, such as `robot.arm`."""
        return ".".join(map(str, self.path))

    def of(self, observation: Any) -> Any:
        """Return this part of an observation, in the dtype of its space if that is a Box.

        Raises:
            ContractError: If it is missing, or not as its space says.
        """
        value, space = observation, self.space
        try:
            for key in self.path:
                value = value[key]
        except (LookupError, TypeError):
            raise self.breach(f"nothing called {self.name}") from None
        if not isinstance(space, spaces.Box):
            if not space.contains(value):
                raise self.breach(" ".join(f"{value!r:.40}".split()), space)
            return value
        try:
            array = value if isinstance(value, np.ndarray) else np.asarray(value)
        except ValueError:
            raise self.breach("lists of different lengths", f"shape {space.shape}") from None
        if array.shape != space.shape:
            raise self.breach(f"shape {array.shape}", space.shape)
        if array.dtype == space.dtype:
            return array
        if not _fits(array, space.dtype):
            raise self.breach(str(array.dtype), space.dtype)
        with np.errstate(over="ignore"):  # Infinity is reported where observations are written.
            return array.astype(space.dtype)

    def vector_of(self, observation: Any) -> NDArray[np.float32]:
        """Return this part of an observation, flattened, as float32.

        Raises:
            ContractError: If it is missing, or not as its space says.
        """
        value, space = self.of(observation), self.space
        flat: Any = value.ravel() if isinstance(space, spaces.Box) else spaces.flatten(space, value)
        if flat.dtype == np.float32:
            return np.asarray(flat)
        with np.errstate(over="ignore"):
            return np.asarray(flat, np.float32)

    def breach(self, what: str, said: Any = None) -> ContractError:
        """Return the error that it is not as its space says.

        Args:
            what: what it is.
            said: what its space says.
        """
        which = f" in {self.name}" if self.path and said is not None else ""
        says = f"its space says {said}" if said is not None else "its space has it"
        return ContractError(f"{self.env} observes {what}{which}, {says}")


def _fits(array: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Return whether values can be cast to a dtype: floats are rounded, integers must be in it."""
    if array.dtype.kind not in "iu" or dtype.kind not in "iu":
        return np.can_cast(array.dtype, dtype, "same_kind")
    info = np.iinfo(dtype)
    return bool(not array.size or (array.min() >= info.min and array.max() <= info.max))


@dataclass(frozen=True)
class Image:
    """How a part becomes an image.

    Attributes:
        part: the part.
        scale: by which its values are multiplied, so that they are 0 to 255.
        channels_first: whether its shape is (C, H, W).
    """

    part: Part
    scale: int
    channels_first: bool

    @property
    def space(self) -> spaces.Box:
        """The space of the images that `of` returns."""
        shape = self.part.space.shape or ()
        if self.channels_first:
            shape = (*shape[1:], shape[0])
        return spaces.Box(0, 255, shape, np.uint8)

    def of(self, observation: Any) -> NDArray[np.uint8]:
        """Return the image in an observation, (H, W) or (H, W, C) uint8.

        Raises:
            EnvError: If it contains NaN or infinity.
            ContractError: If the part is not as its space says.
        """
        image: NDArray[Any] = self.part.of(observation)
        if image.dtype != np.uint8:
            lowest, highest = image.min(), image.max()
            if not np.isfinite(lowest) or not np.isfinite(highest):
                raise EnvError("its observation contains NaN or infinity")
            if lowest < 0 or highest * self.scale > 255:
                raise self.part.breach(
                    f"values of {lowest:g} to {highest:g}", f"0 to {255 // self.scale}"
                )
            image = np.rint(image * self.scale).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(image, 0, -1) if self.channels_first else image)


class Observations(gym.ObservationWrapper[Any, Any, Any]):
    """Observes an image (H, W) or (H, W, C) uint8, a vector (D,) float32, or a Dict of both.

    The image is `screen` in the Dict, and the vector `variables`.

    Args:
        env: the environment.
        name: its name, for messages.

    Attributes:
        left_out: the parts that are not observed, such as `mission (Text)`.

    Raises:
        EnvError: If nothing of the observation is supported, or it has several images.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        space = env.observation_space
        parts = list(parts_of(name, space))
        images = [image for part in parts if (image := image_of(part))]
        seen = [image.part for image in images]
        self._numbers = [p for p in parts if isinstance(p.space, _NUMBERS) and p not in seen]
        self.left_out = tuple(
            f"{part.name} ({type(part.space).__name__})"
            for part in parts
            if not isinstance(part.space, _NUMBERS)
        )
        if len(images) > 1 or not (images or self._numbers):
            raise EnvError(
                f"{name} observes {space}, which is not supported; supported are numbers, an image "
                "(height, width) or (height, width, channels), and dictionaries of numbers and at "
                "most one such image"
            )
        self._image = images[0] if images else None
        if self._image is None:
            self.observation_space = _vector_space(self._numbers)
        elif not self._numbers:
            self.observation_space = self._image.space
        else:
            vector = _vector_space(self._numbers)
            self.observation_space = spaces.Dict(screen=self._image.space, variables=vector)

    def observation(self, observation: Any) -> Any:
        """Return an observation as arranged.

        Raises:
            EnvError: If an image contains NaN or infinity.
            ContractError: If a part is not as its space says.
        """
        if self._image is None:
            return self._vector(observation)
        image = self._image.of(observation)
        if not self._numbers:
            return image
        return {"screen": image, "variables": self._vector(observation)}

    def _vector(self, observation: Any) -> NDArray[np.float32]:
        numbers = [part.vector_of(observation) for part in self._numbers]
        return numbers[0] if len(numbers) == 1 else np.concatenate(numbers)


class Checked(gym.ObservationWrapper[Any, Any, Any]):
    """Checks observations of Doom in a user's wrappers, whose space is that of Doom itself.

    Args:
        env: the environment.
        name: its name, for messages.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self._parts = list(parts_of(name, env.observation_space))

    def observation(self, observation: Any) -> Any:
        """Return an observation in the dtypes of its space.

        Raises:
            ContractError: If a part is not as its space says.
        """
        if not self._parts[0].path:
            return self._parts[0].of(observation)
        return {part.name: part.of(observation) for part in self._parts}


def parts_of(env: str, space: spaces.Space[Any], path: _Path = ()) -> Iterator[Part]:
    """Yield the parts of an observation, in the order in which Gymnasium flattens them.

    Args:
        env: name of the environment.
        space: the space.
        path: where it is.
    """
    if isinstance(space, spaces.Dict):
        for key, part in space.items():
            yield from parts_of(env, part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space):
            yield from parts_of(env, part, (*path, index))
    else:
        yield Part(env, path, space)


def image_of(part: Part) -> Image | None:
    """Return how a part is an image, or None if it is no image.

    A Box with two long sides is one: (H, W), (H, W, C) or (C, H, W), of bytes, of integers of 0 to
    255, or of floats of 0 to 1 or 0 to 255.

    Raises:
        EnvError: If it could be one, but its axes or values are others. Learning from thousands of
            pixels as from a vector would be poor, without any error.
    """
    space = part.space
    if not isinstance(space, spaces.Box) or len(space.shape) < 2:
        return None
    shape = space.shape
    if sorted(shape)[-2] < _SMALLEST_IMAGE:
        return None
    short = [axis for axis, side in enumerate(shape) if side < _SMALLEST_IMAGE]
    if len(shape) > 3 or (len(shape) == 3 and short not in ([0], [2])):
        raise EnvError(
            f"{part.env} observes {space}, whose shape is not supported; --frame-stack stacks the "
            f"frames of images; {_HINT}"
        )
    lowest, highest = space.low.min(), space.high.max()
    if lowest < 0 or highest > 255:
        raise EnvError(
            f"{part.env} observes {space}, an image whose values are not supported; {_HINT}"
        )
    in_unit = space.dtype.kind == "f" and highest <= 1
    return Image(part, 255 if in_unit else 1, short == [0])


def _vector_space(parts: list[Part]) -> spaces.Box:
    """Return the space of the float32 vectors into which parts are flattened."""
    flat = [spaces.flatten_space(part.space) for part in parts]
    low = np.concatenate([part.low for part in flat if isinstance(part, spaces.Box)])
    high = np.concatenate([part.high for part in flat if isinstance(part, spaces.Box)])
    with np.errstate(over="ignore"):
        return spaces.Box(low.astype(np.float32), high.astype(np.float32))
