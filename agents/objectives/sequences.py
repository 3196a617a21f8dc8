"""What objectives that compare env steps share: which steps belong together, and their actions.

Axes: t and n steps and environments of a minibatch, A numbers that encode an action.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from agents.rollout import Rollout

_EVERY = 8  # Statistics of a rollout are computed from every eighth env step.


def same_episode(episode_starts: Tensor, delay: int) -> Tensor:
    """Return whether each step and the one `delay` steps later belong to the same episode.

    Args:
        episode_starts: (t, n) bool.
        delay: from 0 to t.

    Returns:
        (t - delay, n) bool.
    """
    episodes = episode_starts.long().cumsum(0)
    return episodes[delay:] == episodes[: len(episodes) - delay]


def mean_where(losses: Tensor, mask: Tensor, num_steps: int) -> Tensor:
    """Return the mean loss of the steps of a minibatch; that of steps without a target counts as 0.

    The divisor does not depend on the mask. This mean is therefore that of the means of parts, so
    that a minibatch may be split, where episodes start in some parts and not in others.

    Args:
        losses: (s, n) float32, of the first s of `num_steps` steps.
        mask: (s, n) bool, whether a step has a target.
        num_steps: t.
    """
    return (losses * mask).sum() / (num_steps * mask.shape[1])


def sample(rollout: Rollout) -> dict[str, Tensor]:
    """Return the observations of some env steps by part, (s, N, ...), for statistics."""
    return {name: part[::_EVERY] for name, part in rollout.obs.items()}


def sample_pairs(rollout: Rollout) -> tuple[dict[str, Tensor], Tensor]:
    """Return the observations of some env steps and of those that follow them, for statistics.

    Args:
        rollout: the rollout.

    Returns:
        Parts by name, (2, s, N, ...), and (s, N) bool, whether both are of one episode. Where they
        are not, a change counts as 0, as in `mean_where`.
    """
    last = len(rollout.episode_starts) - 1
    pairs = {
        name: torch.stack((part[:last:_EVERY], part[1 : last + 1 : _EVERY]))
        for name, part in rollout.obs.items()
    }
    return pairs, ~rollout.episode_starts[1 : last + 1 : _EVERY]


def choice_sizes(space: spaces.Space[Any]) -> list[int]:
    """Return the number of alternatives of each choice of an action; empty if it is continuous."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec]
    return [2] * space.shape[0] if isinstance(space, spaces.MultiBinary) else []


def num_action_inputs(space: spaces.Space[Any]) -> int:
    """Return A, the width of `encoded_actions`."""
    return sum(choice_sizes(space)) or int(space.shape[0])  # type: ignore[index] # a flat Box


def encoded_actions(space: spaces.Space[Any], actions: Tensor) -> Tensor:
    """Return actions as numbers, (..., A) float32: choices one-hot, continuous ones as they are.

    Args:
        space: the action space.
        actions: (...) or (..., choices) int64, or (..., A) float32 if continuous.
    """
    sizes = choice_sizes(space)
    if not sizes:
        return actions.float()
    choices = actions[..., None] if isinstance(space, spaces.Discrete) else actions
    # Not `F.one_hot`, which reads the actions and therefore waits for the GPU.
    parts = [
        choices[..., i, None] == torch.arange(size, device=actions.device)
        for i, size in enumerate(sizes)
    ]
    return torch.cat(parts, dim=-1).float()
