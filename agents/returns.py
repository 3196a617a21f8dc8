"""Returns and advantages, as pure functions.

Axes: T rollout length, N environments. An episode that `terminated` at step t is worth nothing
after it. One that was `truncated` was merely interrupted: what it would have been worth,
`final_values[t]`, is the value of its real last observation.
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
    """Give the value of the state that each step led to, within the step's own episode.

    Args:
        values: (T, N) float32, V(s_t).
        last_values: (N,) float32, the values of the states after the rollout.
        final_values: (T, N) float32, V of the last observation where `truncated`, else unused.
        terminated: (T, N) bool.
        truncated: (T, N) bool.

    Returns:
        (T, N) float32; 0 where terminated.

    Raises:
        ValueError: If shapes differ; broadcasting would hide it.
    """
    for name, tensor in (
        ("final_values", final_values),
        ("terminated", terminated),
        ("truncated", truncated),
    ):
        if tensor.shape != values.shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, values {tuple(values.shape)}")
    if last_values.shape != values.shape[1:]:
        raise ValueError(
            f"last_values is {tuple(last_values.shape)}, not {tuple(values.shape[1:])}"
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
        gamma: discount of a step.
        gae_lambda: 0 trusts the values, 1 the rewards.

    Returns:
        (T, N) float32 advantages; advantages + values are the TD(lambda) returns.
    """
    # delta_t = r_t + gamma V(s_t+1) - V(s_t)
    deltas = rewards + gamma * following - values
    # A_t = delta_t + gamma lambda A_t+1, and nothing flows back over an episode's end.
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
    """Estimate by V-trace what actions of an older policy are worth (Espeholt et al. 2018).

    Equation 1 in its recursive form (remark 1), with the factor lambda of remark 2, and the
    advantages of section 4.2, before they are weighted. With the same policy, clips of at least 1
    and lambda 1, the targets are the n-step returns.

    Args:
        log_ratios: (T, N) float32, how much likelier the present policy makes each action than the
            one that took it, in nats.
        rewards: (T, N) float32.
        values: (T, N) float32, V(s_t) of the present critic.
        following: (T, N) float32 from `next_values`.
        dones: (T, N) bool, whether an episode ended with the step, in either way.
        gamma: discount of a step.
        gae_lambda: 1 in the paper; less of it cuts traces shorter.
        rho_clip: largest weight of a step; it decides whose values are learned.
        c_clip: largest weight of a trace; it decides how fast.

    Returns:
        (T, N) float32 each: advantages, targets of the critic, and rho, the weights of the steps.
    """
    ratios = log_ratios.exp()
    rho, c = ratios.clamp(max=rho_clip), gae_lambda * ratios.clamp(max=c_clip)
    # delta_t = rho_t (r_t + gamma V(s_t+1) - V(s_t))
    deltas = rho * (rewards + gamma * following - values)
    # v_t - V(s_t) = delta_t + gamma c_t (v_t+1 - V(s_t+1)), and nothing over an episode's end.
    decay = gamma * c * ~dones
    corrections = torch.zeros_like(torch.cat((values, values[-1:])))
    for t in reversed(range(len(deltas))):
        corrections[t] = deltas[t] + decay[t] * corrections[t + 1]
    next_targets = following + corrections[1:] * ~dones
    return rewards + gamma * next_targets - values, values + corrections[:-1], rho


def discounted_returns(
    rewards: Tensor, following: Tensor, dones: Tensor, *, gamma: float
) -> Tensor:
    """Sum up what was paid until the episode's end, discounted: the return of Monte Carlo.

    Where the rollout stops before the episode, or the episode was truncated, the value of the state
    reached stands for the rest.

    Args:
        rewards: (T, N) float32.
        following: (T, N) float32 from `next_values`.
        dones: (T, N) bool.
        gamma: discount of a step.

    Returns:
        (T, N) float32.
    """
    returns = torch.empty_like(rewards)
    rest = following[-1]
    for t in reversed(range(len(rewards))):
        rest = rewards[t] + gamma * torch.where(dones[t], following[t], rest)
        returns[t] = rest
    return returns


def explained_variance(predictions: Tensor, targets: Tensor) -> Tensor:
    """Give the share of the targets' variance that predictions explain, a scalar.

    1 is perfect, 0 no help, and NaN says that targets do not vary.
    """
    variance = targets.var()
    share = 1 - (targets - predictions).var() / variance
    return share.where(variance != 0, torch.nan)
