"""Attacks on a policy that plays, and the random controls of the same size.

An attack sees the pixels of the present env step before the policy does, and changes each of them
by at most epsilon. Vectors beside the screen are never changed. The policy's memory is that of all
changed pixels so far.

Axes: N environments, K env steps of a window, H, W screen, P planes of pixels, S and M rows and
width of the memory's state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from agents.attacks import (
    Loss,
    Pixels,
    fgsm,
    pgd,
    random_search,
    sign_noise,
    step_size,
    uniform_noise,
)
from agents.policy import Obs, Policy

Target = Literal["action", "value"]
Method = Callable[[Loss, Pixels, float, torch.Generator], Pixels]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack, or a control without gradients and queries.

    Attributes:
        text: what it does, for tables.
        method: how pixels are changed: from a loss, the clean pixels, epsilon and a generator.
        target: what is lowered: the probability of the action that is most likely without the
            attack, or the critic's value.
        is_control: whether the policy is not asked at all.
        through_memory: whether gradients flow through the memory of the last steps.
        from_another: whether the attacked policy is another one, whose pixels are then transferred.
    """

    text: str
    method: Method
    target: Target = "action"
    is_control: bool = False
    through_memory: bool = False
    from_another: bool = False


def _fgsm(loss: Loss, clean: Pixels, epsilon: float, generator: torch.Generator) -> Pixels:
    return fgsm(loss, clean, epsilon)


def _pgd(steps: int) -> Method:
    def method(loss: Loss, clean: Pixels, epsilon: float, generator: torch.Generator) -> Pixels:
        start = uniform_noise(clean, epsilon, generator)
        return pgd(loss, clean, epsilon, steps=steps, size=step_size(epsilon, steps), start=start)

    return method


def _search(queries: int) -> Method:
    def method(loss: Loss, clean: Pixels, epsilon: float, generator: torch.Generator) -> Pixels:
        return random_search(loss, clean, epsilon, queries=queries, generator=generator)

    return method


def _noise(draw: Callable[[Pixels, float, torch.Generator], Pixels]) -> Method:
    return lambda loss, clean, epsilon, generator: draw(clean, epsilon, generator)


ATTACKS: dict[str, Attack] = {
    "uniform_noise": Attack(
        text="uniform noise, a control", method=_noise(uniform_noise), is_control=True
    ),
    "sign_noise": Attack(
        text="noise of -epsilon or epsilon, a control", method=_noise(sign_noise), is_control=True
    ),
    "fgsm": Attack(text="one step along the gradient's signs", method=_fgsm),
    "pgd10": Attack(text="10 steps of projected gradient ascent", method=_pgd(10)),
    "pgd40": Attack(text="40 steps of projected gradient ascent", method=_pgd(40)),
    "pgd10_value": Attack(
        text="the same 10 steps against the value", method=_pgd(10), target="value"
    ),
    "pgd10_memory": Attack(
        text="10 steps, with gradients through the memory", method=_pgd(10), through_memory=True
    ),
    "search": Attack(text="random search with 100 queries, no gradients", method=_search(100)),
    "transfer": Attack(
        text="10 steps against another policy, a black box", method=_pgd(10), from_another=True
    ),
}
"""Attacks and controls by name."""

MEMORY_STEPS = 8
"""Env steps through which gradients flow, with memory: 0.9 seconds at frame_skip 4."""


class Moment(NamedTuple):
    """What a policy sees in one env step.

    Attributes:
        obs: parts by name; images as pixels, (N, H, W, P).
        memory_state: (S, N, M) float32, before the step.
        episode_starts: (N,) bool.
    """

    obs: Obs
    memory_state: Tensor
    episode_starts: Tensor


class Attacker:
    """Changes the pixels that a policy is about to see.

    Args:
        attack: how.
        policy: the policy that is attacked.
        epsilon: largest change of a pixel, in [0, 1].
        seed: of all random numbers.
        own_memory: whether the attacked policy only looks on, and keeps a memory of its own.
    """

    def __init__(
        self,
        attack: Attack,
        policy: Policy,
        epsilon: float,
        *,
        seed: int,
        own_memory: bool = False,
    ) -> None:
        self.attack, self.policy, self.epsilon = attack, policy, epsilon
        self._generator = torch.Generator().manual_seed(seed)
        self._window: deque[tuple[Moment, Tensor]]
        self._window = deque(maxlen=MEMORY_STEPS if attack.through_memory else 1)
        self._own_memory = own_memory
        self._own_state: Tensor | None = None

    def __call__(self, moment: Moment) -> Obs:
        """Return observations with changed pixels.

        Args:
            moment: what the policy that plays would see.
        """
        if self._own_memory:
            state = self._own_state
            if state is None:
                state = self.policy.initial_state(len(moment.episode_starts))
            moment = moment._replace(memory_state=state)
        images = {name: moment.obs[name] for name in self.policy.perception.image_names}
        loss = _never_computed if self.attack.is_control else self._loss(moment)
        method, is_flat = self.attack.method, not self.policy.actor.num_choices
        if method is _fgsm and is_flat and self.attack.target == "action":
            # The probability of the most likely number is highest: it has no gradient there.
            method = _pgd(1)
        changed = {**moment.obs, **method(loss, images, self.epsilon, self._generator)}
        if self._own_memory:
            decision = self.policy.act(changed, moment.memory_state, moment.episode_starts, None)
            self._own_state = decision.memory_state
        return changed

    def _loss(self, moment: Moment) -> Loss:
        """Return the loss of changed pixels of a moment, (N,), which the attack raises.

        With gradients through the memory, it is the loss of all env steps of a window, which ends
        with the moment. Their memory is computed again from the pixels that were observed, with the
        same change in each of them: a change that lasts, because it spoils what is remembered.
        """
        with torch.no_grad():
            output = self.policy(*_sequence([moment]))
        self._window.append((moment, output.distribution.mode()[0]))
        window = [seen for seen, _ in self._window]
        obs, state, starts = _sequence(window)
        actions = torch.stack([chosen for _, chosen in self._window])
        # Of the present episode: no other one starts at a later env step of the window.
        later = starts.flip(0).cumsum(0).flip(0) - starts.long()
        counts = (later == 0).float()

        def loss(changed: Pixels) -> Tensor:
            images = {
                name: (obs[name] + (pixels - obs[name][-1])).clamp(0.0, 1.0)
                for name, pixels in changed.items()
            }
            output = self.policy({**obs, **images}, state, starts)
            if self.attack.target == "value":
                losses = -output.values
            else:
                losses = -output.distribution.log_prob(actions)
            total: Tensor = (losses * counts).sum(0)
            return total

        return loss


def _never_computed(pixels: Pixels) -> Tensor:
    raise AssertionError("a control asks no policy")


def _sequence(window: list[Moment]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return K moments as arguments of a policy: parts (K, N, ...), state and starts (K, N)."""
    obs = {name: torch.stack([moment.obs[name] for moment in window]) for name in window[0].obs}
    starts = torch.stack([moment.episode_starts for moment in window])
    return obs, window[0].memory_state, starts
