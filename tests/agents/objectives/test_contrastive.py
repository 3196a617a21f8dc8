"""Tests of `agents.objectives.contrastive`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from agents import AgentError
from agents.objectives import Contrastive, ContrastiveConfig
from agents.objectives.contrastive import info_nce, randomly_shifted
from perception import ImageSpec, VectorSpec
from tests.agents.objectives.moving import make_minibatch, make_small_policy, train
from tests.agents.synthetic import IMAGE, VECTOR, make_obs, make_policy, make_rollout


def slow_info_nce(first, second, temperature):
    """Return the loss and the accuracy, image by image."""
    losses, right = [], 0
    for i in range(len(first)):
        for views, others in ((first, second), (second, first)):
            logits = [F.cosine_similarity(views[i], other, dim=0) / temperature for other in others]
            losses.append(F.cross_entropy(torch.stack(logits)[None], torch.tensor([i])))
        logits = [F.cosine_similarity(first[i], other, dim=0) for other in second]
        right += int(torch.stack(logits).argmax()) == i
    return torch.stack(losses).mean(), right / len(first)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_info_nce_equals_a_loop_over_images(temperature, noise):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(9, 5, generator=generator)
    second = first + noise * torch.randn(9, 5, generator=generator)
    loss, accuracy = info_nce(first, second, temperature)
    expected_loss, expected_accuracy = slow_info_nce(first, second, temperature)
    torch.testing.assert_close(loss, expected_loss)
    assert float(accuracy) == pytest.approx(expected_accuracy)


def test_info_nce_is_low_for_equal_views_and_high_for_those_of_other_images():
    first = torch.eye(6)
    loss, accuracy = info_nce(first, 3.0 * first, 0.05)
    assert loss < 1e-6
    assert accuracy == 1
    loss, accuracy = info_nce(first, first.roll(1, 0), 0.05)
    assert loss > 10
    assert accuracy == 0


def test_with_a_mask_others_are_compared_with_but_have_no_pair():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 9, 5, generator=generator)
    mask = torch.tensor([True, False, True, True, False, True, True, False, True])
    loss, accuracy = info_nce(first, second, 0.5, mask)
    losses, right = [], 0
    for i in mask.nonzero().flatten().tolist():
        for views, others in ((first, second), (second, first)):
            logits = F.cosine_similarity(views[i], others, dim=1) / 0.5
            losses.append(F.cross_entropy(logits[None], torch.tensor([i])))
        right += int(F.cosine_similarity(first[i], second, dim=1).argmax()) == i
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert float(accuracy) == pytest.approx(right / 6)
    everything = info_nce(first, second, 0.5, torch.ones(9, dtype=torch.bool))
    torch.testing.assert_close(everything, info_nce(first, second, 0.5))
    assert info_nce(first, second, 0.5, torch.zeros(9, dtype=torch.bool))[0] == 0


def slowly_shifted(images, rows, columns):
    """Return images shifted by (B,) rows and columns, pixel by pixel."""
    _, height, width = images.shape[:3]
    shifted = images.clone()
    for b, image in enumerate(images):
        for y in range(height):
            for x in range(width):
                source_y = min(max(y + int(rows[b]), 0), height - 1)
                source_x = min(max(x + int(columns[b]), 0), width - 1)
                shifted[b, y, x] = image[source_y, source_x]
    return shifted


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shifted_images_equal_a_loop_over_pixels(dtype):
    images = torch.randint(256, (7, 6, 9, 2)).to(dtype)
    before = images.clone()
    torch.manual_seed(3)
    shifted = randomly_shifted(images, 4)
    assert torch.equal(images, before)
    assert shifted.dtype == dtype
    torch.manual_seed(3)
    rows, columns = torch.randint(-4, 5, (2, 7, 1))
    assert torch.equal(shifted, slowly_shifted(images, rows, columns))
    # Offsets differ from image to image, and in both directions.
    assert len(rows.unique()) > 2
    assert not torch.equal(rows, columns)


def test_palette_indices_are_moved_and_never_averaged():
    images = torch.tensor([3, 250], dtype=torch.uint8)[torch.randint(2, (50, 8, 8, 1))]
    shifted = randomly_shifted(images, 4)
    assert set(shifted.unique().tolist()) == {3, 250}
    # Images stay in order, and most of their pixels stay in the image.
    same = (images[:, 3, 3] == shifted.flatten(1)).float().mean()
    assert same > 0.3


def test_shifts_are_uniform_and_at_most_the_largest():
    row, column = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    images = torch.stack((row, column), -1).expand(4_000, -1, -1, -1)
    centres = randomly_shifted(images, 2)[:, 10, 10] - 10
    for offsets in centres.unbind(1):
        frequencies = (offsets + 2).bincount(minlength=5) / 4_000
        torch.testing.assert_close(frequencies, torch.full((5,), 0.2), rtol=0, atol=0.04)


SPECS = {"screen": IMAGE, "map": IMAGE, "variables": VECTOR}


def make(**options):
    policy = make_policy(specs=SPECS)
    return policy, Contrastive(policy, ContrastiveConfig(**options), ())


def test_all_images_of_an_observation_are_compared_and_vectors_are_not():
    policy, objective = make(projection_size=7)
    assert objective.names == ["screen", "map"]
    assert objective.head.in_features == policy.perception.num_image_features
    assert objective.head.out_features == 7
    rollout = make_rollout(policy, 2, 5)
    torch.manual_seed(0)
    loss, metrics = objective.loss(policy, None, rollout)
    assert loss.shape == metrics["accuracy"].shape == ()
    for name in SPECS:
        changed = dict(rollout.obs, **{name: make_obs(SPECS, 2, 5, seed=9)[name]})
        torch.manual_seed(0)
        other, _ = objective.loss(policy, None, type(rollout)(**{**vars(rollout), "obs": changed}))
        assert torch.equal(other, loss) == (name == "variables")


def test_shifted_images_are_recognised_after_training():
    torch.manual_seed(0)
    specs = {"obs": ImageSpec(shape=(36, 40, 1))}
    policy = make_policy(specs=specs)
    objective = Contrastive(policy, ContrastiveConfig(max_shift=2), ())
    parameters = [*policy.perception.parameters(), *objective.parameters()]
    optimizer = torch.optim.Adam(parameters, 3e-3)
    # Large squares of different brightness, which are still similar after a shift.
    squares = torch.rand(32, 1, 4, 4)
    images = 255 * F.interpolate(squares, size=(36, 40)).permute(0, 2, 3, 1)
    rollout = replace(make_rollout(policy, 1, 32), obs={"obs": images[None].byte()})
    losses = []
    for _ in range(80):
        loss, metrics = objective.loss(policy, None, rollout)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert metrics["accuracy"] > 0.7


def make_slow_and_fast(seed):
    """Return images of two rows of patterns: the first stays for an episode, the second does not.

    There are eight columns; a pattern is which one is bright, of four steps of 16 environments.
    """
    generator = torch.Generator().manual_seed(seed)
    slow = torch.randint(8, (1, 16), generator=generator).expand(4, -1)
    fast = torch.randint(8, (4, 16), generator=generator)
    images = torch.stack([F.one_hot(part, 8) for part in (slow, fast)], 2).byte() * 255
    large = images.repeat_interleave(3, 2)[..., None]
    starts = torch.zeros(4, 16, dtype=torch.bool)
    return make_minibatch(large, torch.zeros(4, 16, dtype=torch.long), starts), slow, fast


def separation(features, codes):
    """Return the share of the variance of (B, F) features that (B,) codes explain."""
    means = torch.stack([features[codes == code].mean(0) for code in codes.unique()])
    within = sum(
        (features[codes == code] - means[i]).square().sum() for i, code in enumerate(codes.unique())
    )
    return 1 - float(within / (features - features.mean(0)).square().sum())


@pytest.mark.parametrize("delay", [0, 2])
def test_with_a_delay_projections_are_those_of_what_lasts(delay):
    """Without one, images are recognised by both patterns, of which each then explains a half."""
    policy = make_small_policy()
    config = ContrastiveConfig(delay=delay, projection_size=16, max_shift=1, temperature=0.2)
    objective = Contrastive(policy, config, ())
    assert objective.sequence_length == delay + 1
    with pytest.MonkeyPatch.context() as patch:  # A shift would turn a pattern into another one.
        patch.setattr("agents.objectives.contrastive.randomly_shifted", lambda images, _: images)
        train(policy, objective, lambda seed: make_slow_and_fast(seed)[0], 60)
    batch, slow, fast = make_slow_and_fast(999)
    with torch.no_grad():
        features = objective.head(policy.perception.encode({"obs": batch.obs["obs"].flatten(0, 1)}))
    explained = [separation(F.normalize(features), codes.flatten()) for codes in (slow, fast)]
    if delay:
        assert explained[0] > 0.8
        assert explained[1] < 0.35
    else:
        assert explained[0] < 0.75
        assert explained[1] > 0.35


def test_pairs_do_not_cross_the_start_of_an_episode():
    """If every step starts one, there are no pairs; with a single pair, others are negatives."""
    policy = make_small_policy()
    objective = Contrastive(policy, ContrastiveConfig(delay=2), ())
    batch, _, _ = make_slow_and_fast(0)
    batch.episode_starts[:] = True
    loss, metrics = objective.loss(policy, None, batch)
    assert loss == metrics["accuracy"] == 0
    batch.episode_starts[1:, 3] = False
    loss, _ = objective.loss(policy, None, batch)
    assert loss > 0


def test_without_a_delay_there_is_no_predictor_so_that_older_checkpoints_are_read():
    _, objective = make()
    assert set(objective.state_dict()) == {"head.weight", "head.bias"}


def test_gradients_of_black_images_are_bounded():
    """The features of black images are zero at first, and so would be their projections."""
    policy, objective = make()
    rollout = make_rollout(policy, 1, 16)
    for name in ("screen", "map"):
        for part in policy.perception.encoders[name].modules():
            if hasattr(part, "palette"):
                part.palette.zero_()
        rollout.obs[name].zero_()
    loss, _ = objective.loss(policy, None, rollout)
    loss.backward()
    gradients = [p.grad.flatten() for p in objective.parameters()]
    assert torch.cat(gradients).norm() < 10
    # Projections of exactly zero are no problem either.
    projections = torch.zeros(4, 3, requires_grad=True)
    loss, _ = info_nce(projections, projections + torch.eye(4, 3), 1.0)
    (gradient,) = torch.autograd.grad(loss, projections)
    assert gradient.norm() < 1e4


def test_without_images_the_error_is_one_line():
    policy = make_policy(specs={"obs": VectorSpec(size=3)})
    message = (
        "^the objective contrastive needs images, but the observations contain none; remove the "
        "objective, or choose an environment with images$"
    )
    with pytest.raises(AgentError, match=message):
        Contrastive(policy, ContrastiveConfig(), ())


@pytest.mark.parametrize("field", ["projection_size", "temperature", "max_shift"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_values_out_of_range_are_errors(field, value):
    with pytest.raises(ValueError, match=f"^{field} must be greater than 0, got {value}$"):
        ContrastiveConfig(**{field: value})


def test_a_negative_delay_is_an_error():
    with pytest.raises(ValueError, match=r"^delay must not be negative, got -1$"):
        ContrastiveConfig(delay=-1)


def test_heads_are_on_the_device_of_the_policy():
    policy = make_policy(specs=SPECS).to("meta")
    objective = Contrastive(policy, ContrastiveConfig(), ())
    assert isinstance(objective.head, nn.Linear)
    assert {parameter.device.type for parameter in objective.parameters()} == {"meta"}
