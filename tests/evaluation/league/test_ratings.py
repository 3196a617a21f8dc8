"""Bradley-Terry ratings, against closed forms, another algorithm, and a simulation."""

import numpy as np
import pytest
from scipy.optimize import minimize

from evaluation.league.ratings import SCALE, bradley_terry, rate, win_probability


@pytest.mark.parametrize(("won", "lost"), [(9, 3), (1, 1), (2.5, 7.5), (19, 1)])
def test_two_players_have_a_closed_form(won, lost):
    ratings = bradley_terry(np.array([[0, won], [lost, 0]]), prior=0)
    assert ratings[0] - ratings[1] == pytest.approx(SCALE * np.log10(won / lost))
    assert ratings.sum() == pytest.approx(0, abs=1e-6)
    assert win_probability(ratings[0] - ratings[1]) == pytest.approx(won / (won + lost))


@pytest.mark.parametrize("prior", [0.0, 0.5, 3.0])
def test_the_likelihood_is_at_its_maximum(prior):
    scores = np.random.default_rng(0).integers(1, 20, (5, 5)) * (1 - np.eye(5))

    def loss(ratings):
        logits = ratings * np.log(10) / SCALE
        total = (scores * np.logaddexp(0, logits[None] - logits[:, None])).sum()
        half = np.logaddexp(0, logits) + np.logaddexp(0, -logits)
        return total + prior / 2 * half.sum() + 1e-9 * (ratings**2).sum()

    found = minimize(
        loss,
        np.zeros(5),
        method="Nelder-Mead",
        options={"maxiter": 9000, "xatol": 1e-5, "fatol": 1e-10, "adaptive": True},
    )
    np.testing.assert_allclose(
        bradley_terry(scores, prior=prior), found.x - found.x.mean(), atol=0.05
    )


def test_who_has_won_everything_has_a_finite_rating():
    ratings = bradley_terry(np.array([[0, 10.0, 10.0], [0, 0, 10.0], [0, 0, 0]]))
    assert np.isfinite(ratings).all()
    assert ratings[0] > ratings[1] > ratings[2]


def test_known_strengths_are_inside_the_intervals():
    """Of 95 % intervals over 60 simulated leagues of 4 players, about 95 % hold the truth."""
    truth = np.array([0.0, 80.0, 150.0, 300.0])
    rng = np.random.default_rng(1)
    inside, leagues = 0, 60
    for league in range(leagues):
        results = {}
        for i in range(4):
            for j in range(i + 1, 4):
                p = win_probability(truth[i] - truth[j])
                results[i, j] = (rng.random(60) < p).astype(float)
        ratings = rate(results, 4, anchor=0, seed=league, resamples=200)
        assert ratings[0].rating == ratings[0].low == ratings[0].high == 0, "the anchor"
        inside += sum(r.low <= t <= r.high for r, t in zip(ratings[1:], truth[1:], strict=True))
    # 180 intervals; they share players, so the count varies more than binomially.
    assert 0.88 <= inside / (3 * leagues) <= 0.99


def test_who_has_won_everything_may_be_less_strong_than_that():
    results = {(0, 1): np.ones(20), (0, 2): np.ones(20), (1, 2): np.zeros(20)}
    for one in rate(results, 3):
        assert one.low <= one.rating <= one.high
        assert one.high - one.low > 100
    best, *_ = rate(results, 3, anchor=1)
    more, *_ = rate({pair: np.repeat(each, 20) for pair, each in results.items()}, 3, anchor=1)
    assert more.low > best.low  # More matches say more.


def test_what_is_no_table():
    with pytest.raises(ValueError, match="square"):
        bradley_terry(np.zeros((2, 3)))
