"""A policy as a differentiable function of decoded images.

Palette indices have no gradient, so images are decoded first, and the policy continues with what
its image encoder receives: colours in [0, 1], or normalised ones.

Axes: B states, P planes, H, W an image, S and M rows and width of the memory's state, A choices.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from agents.policy import Policy, PolicyOutput
from evaluation.errors import EvaluationError
from evaluation.explain.seen import Seen
from perception.perception import ImageEncoder

TARGETS = ("action", "value")
"""What is explained: the log-probability of the chosen action in nats, and the critic's value."""
_BLUR = 1 / 8  # Standard deviation of the blur, in heights of the image.


@dataclass(frozen=True, kw_only=True)
class States:
    """Moments in which a policy decides.

    Attributes:
        images: (B, P, H, W) float32, decoded.
        others: further parts of the observations by name, each (B, D).
        memory_states: (B, S, M) float32, before the decision.
        starts: (B,) bool, whether an episode starts.
        actions: (B,) or (B, A), what was done.
    """

    images: Tensor
    others: Mapping[str, Tensor]
    memory_states: Tensor
    starts: Tensor
    actions: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: slice | Tensor) -> States:
        return States(
            images=self.images[which],
            others={name: part[which] for name, part in self.others.items()},
            memory_states=self.memory_states[which],
            starts=self.starts[which],
            actions=self.actions[which],
        )

    def repeated(self, times: int) -> States:
        """Return each state a number of times, one after another."""
        return self[torch.arange(len(self)).repeat_interleave(times)]

    def with_images(self, images: Tensor) -> States:
        """Return these states with other images."""
        return replace(self, images=images)

    def chunks(self, size: int) -> Iterator[States]:
        """Yield them in parts of at most a number of states."""
        for first in range(0, len(self), size):
            yield self[slice(first, first + size)]


def joined(parts: Sequence[States]) -> States:
    """Return the states of several episodes as one batch."""
    return States(
        images=torch.cat([part.images for part in parts]),
        others={name: torch.cat([p.others[name] for p in parts]) for name in parts[0].others},
        memory_states=torch.cat([part.memory_states for part in parts]),
        starts=torch.cat([part.starts for part in parts]),
        actions=torch.cat([part.actions for part in parts]),
    )


class PixelPolicy:
    """A policy that receives decoded images; the policy itself is not changed.

    Args:
        policy: the policy, which observes one image and any number of vectors.

    Attributes:
        policy: a copy whose image encoder decodes nothing.
        part: name of the part of an observation that is the image.

    Raises:
        EvaluationError: If it observes no image, or several.
    """

    def __init__(self, policy: Policy) -> None:
        names = policy.perception.image_names
        if len(names) != 1:
            has = "no image" if not names else f"{len(names)} images"
            raise EvaluationError(
                f"explain shows where in an image a policy looks, and this one observes {has}; "
                "name a policy that observes one"
            )
        (self.part,) = names
        self.policy = copy.deepcopy(policy).eval().requires_grad_(requires_grad=False)
        encoder = self.policy.perception.encoders[self.part]
        assert isinstance(encoder, ImageEncoder)
        self._decoder = encoder.decoder
        self._decoder.block = 1
        encoder.decoder = nn.Identity()  # type: ignore[assignment] # images are decoded already
        self.encoder = encoder.encoder

    @torch.no_grad()
    def decode(self, images: NDArray[np.uint8]) -> Tensor:
        """Return (B, H, W, C) uint8 images decoded, (B, P, H, W) float32."""
        decoded: Tensor = self._decoder(torch.from_numpy(np.ascontiguousarray(images)))
        return decoded.contiguous()

    def states(self, seen: Seen, steps: Sequence[int]) -> States:
        """Return some moments of an episode.

        Args:
            seen: the episode.
            steps: the env steps.
        """
        index = np.asarray(steps, np.int64)
        which = torch.from_numpy(index)
        return States(
            images=self.decode(seen.obs[self.part][index]),
            others={
                name: torch.from_numpy(seen.obs[name][index])
                for name in self.policy.specs
                if name != self.part
            },
            memory_states=seen.memory_states[:, which].transpose(0, 1),
            starts=seen.starts[which],
            actions=torch.from_numpy(seen.actions[index]),
        )

    def outputs(self, states: States) -> PolicyOutput:
        """Return what the policy computes, as a sequence of one step of B environments."""
        obs = {**states.others, self.part: states.images}
        output: PolicyOutput = self.policy(
            {name: part[None] for name, part in obs.items()},
            states.memory_states.transpose(0, 1),
            states.starts[None],
        )
        return output

    def score(self, states: States, target: str) -> Tensor:
        """Return (B,) what is explained, one of `TARGETS`."""
        output = self.outputs(states)
        if target == "value":
            return output.values[0]
        return output.distribution.log_prob(states.actions[None])[0]


def blurred(images: Tensor) -> Tensor:
    """Return (B, P, H, W) images without detail, which stand for an image where nothing is.

    A Gaussian blur removes objects and leaves the brightness of the room (Fong and Vedaldi 2017;
    Greydanus et al. 2018). It is what occlusion covers an image with, and the baseline of
    integrated gradients.
    """
    deviation = _BLUR * images.shape[2]
    reach = max(1, round(2 * deviation))
    offsets = torch.arange(-reach, reach + 1, dtype=images.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * deviation**2))
    kernel = kernel / kernel.sum()
    for down in (True, False):
        one = kernel[:, None] if down else kernel[None, :]
        weight = one.expand(images.shape[1], 1, *one.shape)
        padding = (0, 0, reach, reach) if down else (reach, reach, 0, 0)
        padded = F.pad(images, padding, mode="replicate")
        images = F.conv2d(padded, weight, groups=images.shape[1])
    return images
