"""Tests of `agents.returns`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.utils import explained_variance as sb3_explained_variance

from agents.returns import explained_variance, gae, next_values, vtrace


def column(*numbers):
    return torch.tensor(numbers, dtype=torch.float32)[:, None]


def flags(*numbers):
    return torch.tensor(numbers, dtype=torch.bool)[:, None]


NEVER = flags(0, 0, 0)
UNUSED = column(9, 9, 9)


def test_gae_without_an_end_equals_hand_worked_numbers():
    # gamma 0.5, lambda 0.5; rewards 1 2 3; values 4 6 8; last value 10.
    # delta_2 = 3 + 0.5 * 10 - 8 = 0       A_2 = 0
    # delta_1 = 2 + 0.5 *  8 - 6 = 0       A_1 = 0 + 0.25 * 0 = 0
    # delta_0 = 1 + 0.5 *  6 - 4 = 0       A_0 = 0
    # With rewards 2 2 5: delta = 1 0 2;   A_2 = 2, A_1 = 0 + 0.25 * 2 = 0.5,
    # A_0 = 1 + 0.25 * 0.5 = 1.125
    values = column(4, 6, 8)
    following = next_values(values, torch.tensor([10.0]), UNUSED, NEVER, NEVER)
    assert following.flatten().tolist() == [6, 8, 10]
    for rewards, expected in (((1, 2, 3), [0, 0, 0]), ((2, 2, 5), [1.125, 0.5, 2])):
        advantages = gae(column(*rewards), values, following, NEVER, gamma=0.5, gae_lambda=0.5)
        assert advantages.flatten().tolist() == expected


def test_gae_stops_at_a_termination():
    # gamma 0.5, lambda 1; rewards 1 2 4; values 2 4 6; last value 8; a termination with step 1.
    # delta_2 = 4 + 0.5 * 8 - 6 = 2        A_2 = 2
    # delta_1 = 2 + 0       - 4 = -2       A_1 = -2, nothing of A_2
    # delta_0 = 1 + 0.5 * 4 - 2 = 1        A_0 = 1 + 0.5 * -2 = 0
    values, terminated = column(2, 4, 6), flags(0, 1, 0)
    following = next_values(values, torch.tensor([8.0]), UNUSED, terminated, NEVER)
    assert following.flatten().tolist() == [4, 0, 8]
    rewards = column(1, 2, 4)
    advantages = gae(rewards, values, following, terminated, gamma=0.5, gae_lambda=1.0)
    assert advantages.flatten().tolist() == [0, -2, 2]


def test_gae_bootstraps_the_last_observation_at_a_truncation():
    # The same, but the episode is truncated with step 1, and the value of its real last observation
    # is 10.
    # delta_1 = 2 + 0.5 * 10 - 4 = 3       A_1 = 3, nothing of A_2
    # A_0 = 1 + 0.5 * 3 = 2.5
    values, truncated = column(2, 4, 6), flags(0, 1, 0)
    following = next_values(values, torch.tensor([8.0]), column(9, 10, 9), NEVER, truncated)
    assert following.flatten().tolist() == [4, 10, 8]
    rewards = column(1, 2, 4)
    advantages = gae(rewards, values, following, truncated, gamma=0.5, gae_lambda=1.0)
    assert advantages.flatten().tolist() == [2.5, 3, 2]


def test_an_episode_that_terminated_and_was_truncated_counts_as_terminated():
    both = flags(0, 0, 1)
    following = next_values(column(1, 2, 3), torch.tensor([4.0]), UNUSED, both, both)
    assert following.flatten().tolist() == [2, 3, 0]


def test_an_end_at_the_last_step_replaces_the_value_after_the_rollout():
    values, last = column(1, 2, 3), torch.tensor([4.0])
    ended = flags(0, 0, 1)
    assert next_values(values, last, UNUSED, ended, NEVER)[-1] == 0
    assert next_values(values, last, column(0, 0, 7), NEVER, ended)[-1] == 7


def scalar_gae(rewards, values, last_value, final_values, terminated, truncated, gamma, lam):
    """Return the advantages of one environment as the sum of equation 11, without recursion."""
    steps = len(rewards)
    advantages = []
    for start in range(steps):
        advantage, weight = 0.0, 1.0
        for t in range(start, steps):
            if terminated[t]:
                following = 0.0
            elif truncated[t]:
                following = final_values[t]
            else:
                following = values[t + 1] if t + 1 < steps else last_value
            advantage += weight * (rewards[t] + gamma * following - values[t])
            weight *= gamma * lam
            if terminated[t] or truncated[t]:
                break
        advantages.append(advantage)
    return advantages


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 12),
    num_envs=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    rate=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
)
def test_gae_equals_a_loop_over_scalars(steps, num_envs, seed, gamma, lam, rate):
    rng = np.random.default_rng(seed)
    rewards, values, final_values = rng.normal(size=(3, steps, num_envs))
    last_values = rng.normal(size=num_envs)
    terminated, truncated = rng.random((2, steps, num_envs)) < rate
    t_rewards, t_values, t_final, t_last = map(
        torch.from_numpy, (rewards, values, final_values, last_values)
    )
    t_terminated, t_truncated = torch.from_numpy(terminated), torch.from_numpy(truncated)
    following = next_values(t_values, t_last, t_final, t_terminated, t_truncated)
    dones = t_terminated | t_truncated
    advantages = gae(t_rewards, t_values, following, dones, gamma=gamma, gae_lambda=lam)
    for n in range(num_envs):
        lane = (rewards[:, n], values[:, n], last_values[n], final_values[:, n])
        expected = scalar_gae(*lane, terminated[:, n], truncated[:, n], gamma, lam)
        np.testing.assert_allclose(advantages[:, n].numpy(), expected, rtol=1e-5, atol=1e-5)


def fill_sb3_buffer(rewards, values, last_values, final_values, terminated, truncated, gamma, lam):
    """Return Stable-Baselines3's buffer with its estimates for the same rollout.

    The value of a truncated episode's last observation is added to the reward, as in its
    `collect_rollouts`.
    """
    steps, num_envs = rewards.shape
    space = spaces.Box(-1, 1, (1,), np.float32)
    buffer = RolloutBuffer(steps, space, spaces.Discrete(2), "cpu", lam, gamma, num_envs)
    dones = terminated | truncated
    starts = np.ones(num_envs)
    only_cut = truncated & ~terminated
    for t in range(steps):
        buffer.add(
            np.zeros((num_envs, 1)),
            np.zeros((num_envs, 1)),
            (rewards[t] + gamma * final_values[t] * only_cut[t]).numpy(),
            starts,
            values[t],
            torch.zeros(num_envs),
        )
        starts = dones[t].numpy()
    buffer.compute_returns_and_advantage(last_values, dones[-1].numpy())
    return buffer


@pytest.mark.parametrize("seed", range(5))
def test_gae_equals_stable_baselines3(seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, values, final_values = torch.randn(3, 50, 4, generator=generator)
    last_values = torch.randn(4, generator=generator)
    terminated, truncated = torch.rand(2, 50, 4, generator=generator) < 0.1
    rollout = (rewards, values, last_values, final_values, terminated, truncated)
    buffer = fill_sb3_buffer(*rollout, 0.97, 0.9)
    following = next_values(values, last_values, final_values, terminated, truncated)
    dones = terminated | truncated
    advantages = gae(rewards, values, following, dones, gamma=0.97, gae_lambda=0.9)
    np.testing.assert_allclose(advantages, buffer.advantages, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(advantages + values, buffer.returns, rtol=1e-4, atol=1e-5)


def discounted_returns(rewards, following, dones, *, gamma):
    """Return the discounted sums of rewards until the end of each episode, (T, N)."""
    returns, rest = torch.empty_like(rewards), following[-1]
    for t in reversed(range(len(rewards))):
        rest = rewards[t] + gamma * torch.where(dones[t], following[t], rest)
        returns[t] = rest
    return returns


def test_gae_with_lambda_0_is_the_td_error_and_with_1_the_return_less_the_value():
    generator = torch.Generator().manual_seed(3)
    rewards, values, following = torch.randn(3, 20, 2, generator=generator)
    dones = torch.rand(20, 2, generator=generator) < 0.2
    # Within an episode the following value is the next step's.
    following[:-1] = torch.where(dones[:-1], following[:-1], values[1:])
    errors = gae(rewards, values, following, dones, gamma=0.9, gae_lambda=0.0)
    torch.testing.assert_close(errors, rewards + 0.9 * following - values)
    whole = gae(rewards, values, following, dones, gamma=0.9, gae_lambda=1.0)
    returns = discounted_returns(rewards, following, dones, gamma=0.9)
    torch.testing.assert_close(whole, returns - values)


def scalar_vtrace(log_ratios, rewards, values, following, dones, gamma, lam, rho_clip, c_clip):
    """Return advantages, targets and weights of one environment by equation 1, term by term."""
    steps = len(rewards)
    ratios = [math.exp(ratio) for ratio in log_ratios]
    targets = []
    for start in range(steps):
        target, trace = values[start], 1.0
        for t in range(start, steps):
            error = rewards[t] + gamma * following[t] - values[t]
            target += gamma ** (t - start) * trace * min(rho_clip, ratios[t]) * error
            trace *= lam * min(c_clip, ratios[t])
            if dones[t]:
                break
        targets.append(target)
    advantages = []
    for t in range(steps):
        continues = t + 1 < steps and not dones[t]
        target = targets[t + 1] if continues else following[t]
        advantages.append(rewards[t] + gamma * target - values[t])
    return advantages, targets, [min(rho_clip, ratio) for ratio in ratios]


def draw_step(seed, steps, num_envs, rate=0.2):
    """Return random rewards, values, following values, and ends of episodes."""
    rng = np.random.default_rng(seed)
    rewards, values, final_values = map(torch.from_numpy, rng.normal(size=(3, steps, num_envs)))
    last_values = torch.from_numpy(rng.normal(size=num_envs))
    terminated, truncated = map(torch.from_numpy, rng.random((2, steps, num_envs)) < rate)
    following = next_values(values, last_values, final_values, terminated, truncated)
    return rewards, values, following, terminated | truncated


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 12),
    num_envs=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    c_clip=st.floats(0.1, 2),
    more=st.floats(0, 2),
    rate=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
)
def test_vtrace_equals_a_sum_over_scalars(steps, num_envs, seed, gamma, lam, c_clip, more, rate):
    rollout = draw_step(seed, steps, num_envs, rate)
    log_ratios = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=(steps, num_envs)))
    clips = {"rho_clip": c_clip + more, "c_clip": c_clip}
    got = vtrace(log_ratios, *rollout, gamma=gamma, gae_lambda=lam, **clips)
    assert all(part.shape == (steps, num_envs) for part in got)
    for n in range(num_envs):
        lane = [part[:, n].tolist() for part in (log_ratios, *rollout)]
        expected = scalar_vtrace(*lane, gamma, lam, **clips)
        for part, right in zip(got, expected, strict=True):
            np.testing.assert_allclose(part[:, n], right, rtol=1e-9, atol=1e-9)


def test_vtrace_equals_hand_worked_numbers():
    # gamma 0.5, lambda 1, clips 1; rewards 1 2; values 4 6; the value after the rollout is 8.
    # The first action has become half as likely, the second twice as likely: rho 0.5 1, c 0.5 1.
    # delta_1 = 2 + 0.5 * 8 - 6 = 0        v_1 = 6
    # delta_0 = 0.5 * (1 + 3 - 4) = 0      v_0 = 4
    # With rewards 2 4: delta = 0.5 2;     v_1 = 8, v_0 = 4 + 0.5 + 0.5 * 0.5 * 2 = 5
    # A_1 = 4 + 0.5 * 8 - 6 = 2;           A_0 = 2 + 0.5 * 8 - 4 = 2
    log_ratios = column(0.5, 2).log()
    values, following, dones = column(4, 6), column(6, 8), flags(0, 0)
    options = {"gamma": 0.5, "gae_lambda": 1.0, "rho_clip": 1.0, "c_clip": 1.0}
    for rewards, expected in (((1, 2), ([0, 0], [4, 6])), ((2, 4), ([2, 2], [5, 8]))):
        got = vtrace(log_ratios, column(*rewards), values, following, dones, **options)
        assert tuple(part.flatten().tolist() for part in got) == (*expected, [0.5, 1])


@pytest.mark.parametrize("clip", [1.0, 3.0])
def test_vtrace_of_the_same_policy_equals_the_returns(clip):
    rewards, values, following, dones = rollout = draw_step(0, 30, 5)
    same = torch.zeros(30, 5, dtype=torch.float64)
    options = {"gamma": 0.9, "gae_lambda": 1.0}
    advantages, targets, rho = vtrace(same, *rollout, rho_clip=clip, c_clip=clip, **options)
    assert (rho == 1).all()
    returns = discounted_returns(rewards, following, dones, gamma=0.9)
    torch.testing.assert_close(targets, returns)
    torch.testing.assert_close(advantages, returns - values)
    torch.testing.assert_close(advantages, gae(*rollout, **options), rtol=1e-5, atol=1e-6)


def test_each_clip_of_vtrace_has_its_own_effect():
    rollout = draw_step(0, 30, 5)
    log_ratios = torch.from_numpy(np.random.default_rng(1).normal(size=(30, 5)))

    def estimate(rho_clip, c_clip, log_ratios=log_ratios):
        clips = {"rho_clip": rho_clip, "c_clip": c_clip}
        return vtrace(log_ratios, *rollout, gamma=0.9, gae_lambda=1.0, **clips)

    for one, other in (((1.0, 1.0), (2.0, 1.0)), ((2.0, 1.0), (2.0, 2.0))):
        for left, right in zip(estimate(*one)[:2], estimate(*other)[:2], strict=True):
            assert not torch.allclose(left, right)
    # Ratios above the clips have the same effect as ratios that equal the clips.
    at_most = log_ratios.clamp(max=math.log(2.0))
    for left, right in zip(estimate(2.0, 2.0), estimate(9.0, 9.0, at_most), strict=True):
        torch.testing.assert_close(left, right)
    # Without traces, only the TD errors remain.
    rewards, values, following, _ = rollout
    rho = log_ratios.exp().clamp(max=2.0)
    _, targets, _ = estimate(2.0, 0.0)
    torch.testing.assert_close(targets, values + rho * (rewards + 0.9 * following - values))


@pytest.mark.parametrize("name", ["final_values", "terminated", "truncated", "last_values"])
def test_a_wrong_shape_is_an_error_that_names_the_argument(name):
    arguments = {
        "values": torch.zeros(5, 2),
        "last_values": torch.zeros(2),
        "final_values": torch.zeros(5, 2),
        "terminated": torch.zeros(5, 2, dtype=torch.bool),
        "truncated": torch.zeros(5, 2, dtype=torch.bool),
    }
    # It would broadcast silently.
    arguments[name] = arguments[name][..., :1]
    with pytest.raises(ValueError, match=f"^{name} has shape "):
        next_values(**arguments)


def test_gae_with_lambda_1_equals_hand_worked_returns():
    # gamma 0.5; rewards 1 2 4 8; the episode terminates with step 1; the value after the rollout is
    # 16.
    # R_3 = 8 + 0.5 * 16 = 16;  R_2 = 4 + 0.5 * 16 = 12;  R_1 = 2;  R_0 = 1 + 0.5 * 2 = 2
    # With a truncation at step 1 and a value of 6: R_1 = 2 + 0.5 * 6 = 5;  R_0 = 1 + 0.5 * 5 = 3.5
    rewards, values, dones = column(1, 2, 4, 8), column(5, 7, 3, 6), flags(0, 1, 0, 0)
    for value, expected in ((0, [2, 2, 12, 16]), (6, [3.5, 5, 12, 16])):
        following = column(7, value, 6, 16)
        advantages = gae(rewards, values, following, dones, gamma=0.5, gae_lambda=1.0)
        assert (advantages + values).flatten().tolist() == expected


def test_explained_variance_of_perfect_useless_and_harmful_predictions():
    targets = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(targets, targets) == 1.0
    assert explained_variance(torch.full((4,), 7.0), targets) == 0.0
    # Var of (2, 4, 6, 8) is 4 times that of the targets.
    assert explained_variance(-targets, targets) == pytest.approx(-3.0)
    assert math.isnan(explained_variance(targets, torch.ones(4)))


def test_explained_variance_equals_stable_baselines3():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(1000, generator=generator)
    predictions = targets + 0.3 * torch.randn(1000, generator=generator)
    expected = sb3_explained_variance(predictions.numpy(), targets.numpy())
    assert explained_variance(predictions, targets) == pytest.approx(float(expected), abs=1e-5)
