"""Returns and advantages, as pure functions.

If an episode `terminated` with step t, the value of what follows is 0. If it was `truncated`, it
could have continued, and the value of what follows is that of its real last observation,
`final_values[t]`. Axes: T rollout length, N environments.
"""

from __future__ import annotations

import torch
from torch import Tensor


def next_values(
    values: Tensor,
    last_values: Tensor,
    final_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
) -> Tensor:
    """Return the value of the state that each step led to, within the step's episode.

    Where time ran out, that is the value of the real last observation, which `Sampler` computes.

    Args:
        values: (T, N) float32, V(s_t).
        last_values: (N,) float32, the values of the states after the rollout.
        final_values: (T, N) float32, values of real last observations where `truncated`; other
            elements are not used.
        terminated: (T, N) bool.
        truncated: (T, N) bool.

    Returns:
        (T, N) float32; 0 where terminated.

    Raises:
        ValueError: If shapes differ, because broadcasting would hide it.
    """
    for name, tensor in (
        ("final_values", final_values),
        ("terminated", terminated),
        ("truncated", truncated),
    ):
        if tensor.shape != values.shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, but values has {tuple(values.shape)}"
            )
    if last_values.shape != values.shape[1:]:
        raise ValueError(
            f"last_values has shape {tuple(last_values.shape)} instead of {tuple(values.shape[1:])}"
        )
    following = torch.cat((values[1:], last_values[None]))
    following = torch.where(truncated, final_values, following)
    return torch.where(terminated, 0.0, following)


def gae(
    rewards: Tensor,
    values: Tensor,
    following: Tensor,
    dones: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Compute generalised advantage estimates (Schulman et al. 2016, equations 11 and 16).

    Args:
        rewards: (T, N) float32.
        values: (T, N) float32, V(s_t).
        following: (T, N) float32 from `next_values`.
        dones: (T, N) bool, whether an episode ended with the step, in either way.
        gamma: discount of an env step.
        gae_lambda: 0 relies on values, 1 on rewards.

    Returns:
        (T, N) float32 advantages; advantages + values are the TD(lambda) returns.
    """
    # delta_t = r_t + gamma V(s_t+1) - V(s_t)
    deltas = rewards + gamma * following - values
    # A_t = delta_t + gamma lambda A_t+1, without the second term at the end of an episode.
    decay = gamma * gae_lambda * ~dones
    advantages = torch.empty_like(deltas)
    advantage = torch.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        advantage = deltas[t] + decay[t] * advantage
        advantages[t] = advantage
    return advantages


def vtrace(
    log_ratios: Tensor,
    rewards: Tensor,
    values: Tensor,
    following: Tensor,
    dones: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    rho_clip: float,
    c_clip: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate the advantages of an older policy's actions by V-trace (Espeholt et al. 2018).

    This is equation 1 in its recursive form (remark 1), with the factor lambda of remark 2, and the
    advantages of section 4.2 without their weights. If both policies are the same, the clips are at
    least 1 and lambda is 1, the targets are the n-step returns.

    Args:
        log_ratios: (T, N) float32, log-probability of each action under the current policy minus
            that under the older policy, in nats.
        rewards: (T, N) float32.
        values: (T, N) float32, V(s_t) of the current critic.
        following: (T, N) float32 from `next_values`, with values of the current critic.
        dones: (T, N) bool, whether an episode ended with the step, in either way.
        gamma: discount of an env step.
        gae_lambda: lambda of remark 2: 1 in the paper; lower values shorten traces.
        rho_clip: largest weight of a step; it determines the policy whose values are learned.
        c_clip: largest weight of a trace; it determines how fast they are learned.

    Returns:
        (T, N) float32 each: the advantages, the targets of the critic, and rho, the weights of the
        steps.
    """
    ratios = log_ratios.exp()
    rho, c = ratios.clamp(max=rho_clip), gae_lambda * ratios.clamp(max=c_clip)
    # delta_t = rho_t (r_t + gamma V(s_t+1) - V(s_t))
    deltas = rho * (rewards + gamma * following - values)
    # v_t - V(s_t) = delta_t + gamma c_t (v_t+1 - V(s_t+1)), without the second term at the end of
    # an episode.
    decay = gamma * c * ~dones
    corrections = torch.zeros_like(torch.cat((values, values[-1:])))
    for t in reversed(range(len(deltas))):
        corrections[t] = deltas[t] + decay[t] * corrections[t + 1]
    next_targets = following + corrections[1:] * ~dones
    return rewards + gamma * next_targets - values, values + corrections[:-1], rho


def explained_variance(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the share of the targets' variance that predictions explain.

    Args:
        predictions: (B,) float32.
        targets: (B,) float32.

    Returns:
        A scalar: 1 if predictions are perfect, 0 if they are no better than a constant, negative if
        they are worse, and NaN if the targets do not vary.
    """
    variance = targets.var()
    share = 1 - (targets - predictions).var() / variance
    return share.where(variance != 0, torch.nan)
