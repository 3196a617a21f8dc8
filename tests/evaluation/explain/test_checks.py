"""Tests of `evaluation.explain.checks`, with a policy that looks at one pixel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from evaluation.explain.attribution import METHODS, attributed, gradient
from evaluation.explain.checks import (
    areas,
    curves,
    deletion,
    layers_from_the_top,
    random_maps,
    randomisation,
    randomised,
    rank_correlations,
    structural_similarity,
    untrained,
)
from evaluation.explain.pixels import PixelPolicy, blurred
from tests.agents.synthetic import IMAGE, make_policy
from tests.evaluation.explain.hints import DISTRACTOR, HINT, hint_policy, hint_states


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    policy, right = hint_policy()
    assert right > 0.9
    return policy


def edges(score, states):
    """A method that shows the image, whatever the network computes."""
    return (states.images - blurred(states.images)).abs().sum(1)


@pytest.mark.parametrize("name", METHODS)
def test_methods_find_the_pixel_that_gives_the_answer(trained, name):
    if name == "integrated_gradients":
        pytest.importorskip("captum")

    def maps_of(policy):
        pixels, states = hint_states(policy)
        return attributed(pixels, states, METHODS[name], "action").abs()

    maps = maps_of(trained)
    above = (maps > maps[:, HINT[0], HINT[1], None, None]).flatten(1).sum(1).float().mean()
    assert above <= 4.0  # A patch of occlusion has four pixels.
    assert (maps[(..., *HINT)] > 3 * maps[(..., *DISTRACTOR)]).all()
    # Without learning, neither of the two is preferred.
    random = [maps_of(untrained(trained, seed)).mean(0) for seed in range(8)]
    assert 1 <= sum(bool(m[HINT] > m[DISTRACTOR]) for m in random) <= 7


def test_a_method_that_shows_the_image_fails_and_gradients_pass(trained):
    _, states = hint_states(trained)
    tests = randomisation(trained, states, {"gradient": gradient, "edges": edges}, "action")
    assert tests["edges"].fails
    assert tests["edges"].correlations == pytest.approx([1.0] * len(tests["edges"].layers))
    assert not tests["gradient"].fails
    assert tests["gradient"].similarities[-1] < 0.9


def test_layers_are_randomised_one_after_another_from_the_top():
    policy = make_policy(specs={"obs": IMAGE}, memory="lstm", seed=1)
    layers = layers_from_the_top(policy)
    assert layers[0].split() == ["actor.layer", "critic"]
    assert ["memory" in layers[1], "layers.0" in layers[-1]] == [True, True]
    changed = []
    for _, other in randomised(policy):
        theirs = other.state_dict()
        changed.append({n for n, t in policy.state_dict().items() if not torch.equal(t, theirs[n])})
    assert all(before < after for before, after in itertools.pairwise(changed))
    weights = {n for n, p in policy.named_parameters() if n.endswith("weight")}
    assert weights <= changed[-1]


def test_centred_ranks_ignore_what_the_architecture_determines():
    rng = np.random.default_rng(0)
    place = rng.random((12, 12))  # The same in all states and networks.
    one, other = (place + 0.1 * rng.random((8, 12, 12)) for _ in range(2))
    raw, centred = rank_correlations(one, other)
    assert raw > 0.8
    assert abs(centred) < 0.1
    assert rank_correlations(one, one) == pytest.approx((1.0, 1.0))


def test_structural_similarity_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    a, b = rng.random((9, 11)), rng.random((9, 11))
    a, b = a / a.max(), b / b.max()
    padded_a, padded_b = (np.pad(x, 3, mode="symmetric") for x in (a, b))
    values = []
    for row in range(9):
        for column in range(11):
            x, y = (p[row : row + 7, column : column + 7] for p in (padded_a, padded_b))
            covariance = ((x - x.mean()) * (y - y.mean())).mean()
            above = (2 * x.mean() * y.mean() + 1e-4) * (2 * covariance + 9e-4)
            below = (x.mean() ** 2 + y.mean() ** 2 + 1e-4) * (x.var() + y.var() + 9e-4)
            values.append(above / below)
    assert structural_similarity(a, b) == pytest.approx(np.mean(values))
    assert structural_similarity(a, a) == pytest.approx(1.0)


def test_deleting_the_pixels_of_a_method_changes_more_than_random_masks(trained):
    pixels, states = hint_states(trained)
    areas_of = deletion(pixels, states, {"gradient": gradient}, "action")["gradient"]
    assert areas_of.deletion.mean() < areas_of.random_deletion.mean() - 0.1
    assert areas_of.insertion.mean() > areas_of.random_insertion.mean() + 0.1


def test_curves_begin_and_end_at_the_whole_images(trained):
    pixels, states = hint_states(trained)
    maps = random_maps(len(states), *states.images.shape[2:], seed=0)
    clear = pixels.score(states, "value").double().numpy()
    blurry = pixels.score(states.with_images(blurred(states.images)), "value").double().numpy()
    for insert, (first, last) in ((False, (clear, blurry)), (True, (blurry, clear))):
        scores = curves(pixels, states, maps, "value", insert=insert)
        np.testing.assert_allclose(scores[:, 0], first, rtol=1e-5)
        np.testing.assert_allclose(scores[:, -1], last, rtol=1e-5)
    assert areas(np.array([[1.0] * 11, list(np.linspace(0, 1, 11))])) == pytest.approx([1.0, 0.5])


def test_the_policy_itself_is_not_changed(trained):
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    list(randomised(trained))
    PixelPolicy(trained)
    assert all(torch.equal(before[n], t) for n, t in trained.state_dict().items())
