"""A policy that plays while what it sees is changed, and what that does to its decisions.

Axes: N environments, S and M rows and width of the memory's state, A choices, D draws of an action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Tensor

from agents.policy import Decision, Obs, Policy
from evaluation.playing import CountingPlayer
from evaluation.robustness.attacker import Moment

Change = Callable[[Obs, Moment], Obs]
"""Returns the observations that a policy sees: from those of the environments, and the same as
pixels."""
Watch = Callable[[Obs, Obs], None]
"""Is called with the pixels before and after a change."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a change of observations does to decisions with the same memory, on average.

    Attributes:
        distance: total variation between the distributions over actions, in [0, 1]; 0 if actions
            are continuous.
        changed: share of decisions whose most likely action is another one, in [0, 1].
        value: change of the critic's value, in native reward.
    """

    distance: float
    changed: float
    value: float


class ChangedPlayer(CountingPlayer):
    """Plays with a policy that sees changed observations; see `Player`.

    Args:
        policy: the policy.
        change: changes observations; None: the policy sees the pixels as they are.
        watch: is called in every env step.
    """

    def __init__(
        self, policy: Policy, change: Change | None = None, watch: Watch | None = None
    ) -> None:
        self._policy, self._change, self._watch = policy, change, watch
        self._effects: list[Tensor] = []

    def initial_state(self, num_envs: int) -> Tensor:
        """See `Player.initial_state`."""
        return self._policy.initial_state(num_envs)

    def act(
        self, obs: Obs, memory_state: Tensor, episode_starts: Tensor, draws: Tensor | None
    ) -> Decision:
        """Choose actions; see `Policy.act`."""
        pixels = self._policy.perception.pixels(obs)
        if self._change is None:
            return self._policy.act(pixels, memory_state, episode_starts, draws)
        changed = self._change(obs, Moment(pixels, memory_state, episode_starts))
        if self._watch is not None:
            self._watch(pixels, changed)
        decision = self._policy.act(changed, memory_state, episode_starts, draws)
        clean, other = (
            self._policy.act(seen, memory_state, episode_starts, None) for seen in (pixels, changed)
        )
        differ = (clean.actions != other.actions).reshape(len(episode_starts), -1).any(1)
        distance = total_variation(self._policy, clean.probabilities, decision.probabilities)
        numbers = torch.stack((distance, differ.float(), decision.values - clean.values))
        self._effects.append((numbers if self.counted is None else numbers[:, self.counted]).cpu())
        return decision

    def effect(self, value_unit: float) -> Effect | None:
        """Return the effect on all decisions so far; None if nothing was changed.

        Args:
            value_unit: native reward that corresponds to a value of 1.
        """
        if not self._effects:
            return None
        distance, changed, value = torch.cat(self._effects, 1).mean(1).tolist()
        return Effect(distance=distance, changed=changed, value=value * value_unit)


def total_variation(policy: Policy, left: Tensor, right: Tensor) -> Tensor:
    """Return the total variation between distributions over actions, (N,) in [0, 1].

    Of several choices or switches, it is the mean. Continuous actions have none: it is 0.

    Args:
        policy: the policy.
        left: (N, A) probabilities of all choices.
        right: (N, A), others.
    """
    difference = (left - right).abs()
    if not difference.shape[-1]:
        return difference.sum(-1)
    if isinstance(policy.action_space, spaces.MultiBinary):
        return difference.mean(-1)  # Of a switch, the probability of being off differs as much.
    return 0.5 * difference.sum(-1) / len(policy.actor.sizes)
