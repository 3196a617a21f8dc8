"""Tests of `agents.distributions`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as oracle

from agents.distributions import (
    ActionHead,
    Bernoulli,
    Categorical,
    Gaussian,
    MultiCategorical,
    num_draws,
)
from tests.agents.synthetic import make_draws

SIZES = [2, 3, 4]
LOG_STD = torch.tensor([-0.5, 0.0, 0.7])


def categorical(logits):
    return Categorical(logits), oracle.Categorical(logits=logits)


def bernoulli(logits):
    return Bernoulli(logits), oracle.Independent(oracle.Bernoulli(logits=logits), 1)


def gaussian(mean):
    log_std = LOG_STD[: mean.shape[-1]]
    normal = oracle.Normal(mean, log_std.exp().expand_as(mean))
    return Gaussian(mean, log_std), oracle.Independent(normal, 1)


PAIRS = {"categorical": categorical, "bernoulli": bernoulli, "gaussian": gaussian}


@pytest.mark.parametrize("kind", PAIRS)
@settings(max_examples=25, deadline=None)
@given(
    leading=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.1, 1.0, 20.0]),
)
def test_log_prob_and_entropy_equal_those_of_torch(kind, leading, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    parameters = scale * torch.randn(*leading, 3, generator=generator)
    ours, theirs = PAIRS[kind](parameters)
    draws = torch.rand(*leading, 1 if kind == "categorical" else 3, generator=generator)
    actions = ours.sample(draws)
    assert actions.shape == theirs.sample().shape
    log_prob, entropy = ours.log_prob(actions), ours.entropy()
    assert log_prob.shape == entropy.shape == torch.Size(leading)
    expected = theirs.log_prob(actions.float())
    torch.testing.assert_close(log_prob, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entropy, theirs.entropy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", PAIRS)
def test_divergences_equal_those_of_torch(kind):
    one, other = (PAIRS[kind](each) for each in 2 * torch.randn(2, 5, 4, 3))
    if kind == "gaussian":
        wide = 0.3 * torch.ones(3)
        normal = oracle.Normal(other[0].mean, wide.exp().expand_as(other[0].mean))
        other = Gaussian(other[0].mean, wide), oracle.Independent(normal, 1)
    found = one[0].kl(other[0])
    torch.testing.assert_close(found, oracle.kl_divergence(one[1], other[1]), rtol=1e-4, atol=1e-5)
    assert (found > 0).all()
    torch.testing.assert_close(one[0].kl(one[0]), torch.zeros(5, 4), rtol=0, atol=1e-5)


def test_the_divergence_of_several_choices_is_the_sum_of_theirs():
    logits = torch.randn(2, 5, sum(SIZES))
    one, other = (MultiCategorical(each, SIZES) for each in logits)
    parts = zip(*(each.split(SIZES, -1) for each in logits), strict=True)
    expected = sum(Categorical(a).kl(Categorical(b)) for a, b in parts)
    torch.testing.assert_close(one.kl(other), expected)


@settings(max_examples=25, deadline=None)
@given(leading=st.lists(st.integers(1, 4), min_size=1, max_size=2), seed=st.integers(0, 2**31))
def test_log_prob_and_entropy_of_several_choices_are_sums_of_those_of_torch(leading, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(*leading, sum(SIZES), generator=generator)
    ours = MultiCategorical(logits, SIZES)
    theirs = [oracle.Categorical(logits=part) for part in logits.split(SIZES, -1)]
    actions = ours.sample(torch.rand(*leading, 3, generator=generator))
    assert actions.shape == (*leading, 3)
    log_prob = sum(d.log_prob(actions[..., i]) for i, d in enumerate(theirs))
    torch.testing.assert_close(ours.log_prob(actions), log_prob, rtol=1e-4, atol=1e-5)
    entropy = sum(d.entropy() for d in theirs)
    torch.testing.assert_close(ours.entropy(), entropy, rtol=1e-4, atol=1e-5)


SAMPLES = 40_000
# Five standard deviations of the frequency of a fair coin, so that only a wrong sampler fails.
TOLERANCE = 5 * 0.5 / SAMPLES**0.5


def many(parameters, num_draws):
    """Return parameters repeated over two axes, and draws for each repetition."""
    leading = (SAMPLES // 100, 100)
    draws = torch.rand(*leading, num_draws, generator=torch.Generator().manual_seed(0))
    return parameters.expand(*leading, -1), draws


def test_choices_are_sampled_with_their_probabilities():
    logits, draws = many(torch.tensor([0.0, 1.0, -1.0, 3.0]), 1)
    distribution = Categorical(logits)
    samples = distribution.sample(draws)
    assert samples.dtype == torch.int64
    frequencies = samples.flatten().bincount(minlength=4) / SAMPLES
    expected = torch.tensor([0.0, 1.0, -1.0, 3.0]).softmax(0)
    torch.testing.assert_close(frequencies, expected, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(distribution.probabilities()[0, 0], expected)


def test_each_of_several_choices_is_sampled_with_its_probabilities():
    logits, draws = many(torch.tensor([0.5, -0.5, 1.0, 0.0, -1.0, 2.0, 0.0, 0.0, 0.0]), 3)
    distribution = MultiCategorical(logits, SIZES)
    samples = distribution.sample(draws).flatten(0, 1)
    expected = [part.softmax(0) for part in logits[0, 0].split(SIZES)]
    for i, probabilities in enumerate(expected):
        frequencies = samples[:, i].bincount(minlength=SIZES[i]) / SAMPLES
        torch.testing.assert_close(frequencies, probabilities, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(distribution.probabilities()[0, 0], torch.cat(expected))
    # They are sampled independently of each other.
    assert np.corrcoef(samples.T)[0, 1] == pytest.approx(0, abs=0.03)


def test_switches_are_sampled_with_their_probabilities():
    logits, draws = many(torch.tensor([-2.0, 0.0, 1.0]), 3)
    distribution = Bernoulli(logits)
    samples = distribution.sample(draws)
    assert set(samples.unique().tolist()) == {0, 1}
    expected = torch.tensor([-2.0, 0.0, 1.0]).sigmoid()
    torch.testing.assert_close(samples.float().mean((0, 1)), expected, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(distribution.probabilities()[0, 0], expected)


def test_numbers_are_sampled_with_their_mean_and_deviation():
    mean, draws = many(torch.tensor([-1.0, 0.0, 4.0]), 3)
    distribution = Gaussian(mean, LOG_STD)
    samples = distribution.sample(draws)
    assert samples.dtype == torch.float32
    expected = oracle.Normal(mean, LOG_STD.exp()).icdf(draws)
    torch.testing.assert_close(samples, expected, rtol=1e-3, atol=1e-3)
    samples = samples.flatten(0, 1)
    torch.testing.assert_close(samples.mean(0), mean[0, 0], rtol=0, atol=0.06)
    torch.testing.assert_close(samples.std(0), LOG_STD.exp(), rtol=0.02, atol=0)
    assert distribution.probabilities().shape == (SAMPLES // 100, 100, 0)


# The smallest and the largest float32 draw.
LEAST, MOST = 0.0, 1 - 2.0**-24


@pytest.mark.parametrize("draw", [LEAST, MOST])
def test_the_smallest_and_the_largest_draw_result_in_finite_numbers(draw):
    distribution = Gaussian(torch.zeros(4, 3), LOG_STD)
    samples = distribution.sample(torch.full((4, 3), draw))
    # On either side, one number in 2^25 is larger in absolute value.
    assert (samples / LOG_STD.exp()).abs().max() == pytest.approx(5.42, abs=0.01)
    assert torch.isfinite(distribution.log_prob(samples)).all()


@settings(max_examples=50, deadline=None)
@given(
    choices=st.integers(2, 30),
    impossible=st.lists(st.booleans(), min_size=30, max_size=30),
    seed=st.integers(0, 2**31),
)
def test_no_draw_results_in_an_impossible_choice(choices, impossible, seed):
    generator = torch.Generator().manual_seed(seed)
    never = torch.tensor(impossible[:choices])
    never[int(torch.randint(choices, (), generator=generator))] = False
    logits = torch.randn(200, choices, generator=generator).masked_fill(never, -1e4)
    for draw in (LEAST, 0.5, MOST):
        chosen = Categorical(logits).sample(torch.full((200, 1), draw))
        assert not never[chosen].any()


def test_mode_is_the_most_likely_action():
    logits = torch.tensor([[[0.0, 2.0, 1.0], [5.0, -1.0, 0.0]]])
    assert Categorical(logits).mode().tolist() == [[1, 0]]
    assert MultiCategorical(logits, [1, 2]).mode().tolist() == [[[0, 0], [0, 1]]]
    assert Bernoulli(logits - 0.5).mode().tolist() == [[[0, 1, 1], [1, 0, 0]]]
    assert torch.equal(Gaussian(logits, LOG_STD).mode(), logits)


def test_samples_depend_only_on_the_draws():
    draws, others = torch.rand(2, 5, 20, 3, generator=torch.Generator().manual_seed(1))
    for make, num in ((categorical, 1), (bernoulli, 3), (gaussian, 3)):
        distribution, _ = make(torch.zeros(5, 20, 3))
        before = torch.get_rng_state()
        first, again = (distribution.sample(draws[..., :num]) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(first, again)
        assert not torch.equal(first, distribution.sample(others[..., :num]))
        # Each element depends only on its own draws.
        alone, _ = make(torch.zeros(1, 1, 3))
        assert torch.equal(alone.sample(draws[3:4, 7:8, :num])[0, 0], first[3, 7])


def test_probabilities_of_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    for distribution, action in ((Categorical(logits), [1]), (Bernoulli(logits), [[0, 1, 1]])):
        value = distribution.log_prob(torch.tensor(action)) + distribution.entropy()
        assert torch.isfinite(value).all()
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert torch.isfinite(gradient).all()


SPACES = {
    "discrete": (spaces.Discrete(4), Categorical, (), 4),
    "multi_discrete": (spaces.MultiDiscrete([2, 3]), MultiCategorical, (2,), 5),
    "multi_binary": (spaces.MultiBinary(3), Bernoulli, (3,), 3),
    "box": (spaces.Box(-1, 1, (2,), np.float32), Gaussian, (2,), 0),
}


@pytest.mark.parametrize("kind", SPACES)
def test_a_head_fits_its_action_space(kind):
    space, expected, shape, choices = SPACES[kind]
    torch.manual_seed(0)
    head = ActionHead(space, 8)
    features = torch.randn(5, 3, 8)
    distribution = head(features)
    assert isinstance(distribution, expected)
    actions = distribution.sample(make_draws(space, 5, 3))
    assert actions.shape == distribution.mode().shape == (5, 3, *shape)
    assert distribution.log_prob(actions).shape == distribution.entropy().shape == (5, 3)
    assert distribution.probabilities().shape == (5, 3, choices)
    if kind != "box":
        assert all(space.contains(a) for a in actions.flatten(0, 1).numpy())


@pytest.mark.parametrize(("kind", "expected"), list(zip(SPACES, [1, 2, 3, 2], strict=True)))
def test_every_choice_needs_one_draw(kind, expected):
    assert num_draws(SPACES[kind][0]) == expected


@pytest.mark.parametrize("kind", SPACES)
def test_every_parameter_of_a_head_learns(kind):
    torch.manual_seed(0)
    head = ActionHead(SPACES[kind][0], 8)
    distribution = head(torch.randn(5, 3, 8))
    actions = distribution.sample(make_draws(SPACES[kind][0], 5, 3)).detach()
    (distribution.log_prob(actions).square().sum() + distribution.entropy().sum()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_all_actions_of_a_new_head_are_about_equally_likely():
    torch.manual_seed(0)
    probabilities = ActionHead(spaces.Discrete(5), 64)(torch.randn(100, 64)).probabilities()
    torch.testing.assert_close(probabilities, torch.full((100, 5), 0.2), rtol=0, atol=0.03)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2, 2)),
        spaces.Box(-1, 1, ()),
        spaces.MultiBinary([2, 2]),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.Text(5),
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.Dict(a=spaces.Discrete(2)),
    ],
    ids=str,
)
def test_the_error_for_other_spaces_names_the_supported_ones(space):
    with pytest.raises(ValueError, match=r"not supported; Discrete, MultiDiscrete, MultiBinary"):
        ActionHead(space, 8)
