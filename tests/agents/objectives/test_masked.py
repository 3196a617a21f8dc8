"""Tests of `agents.objectives.masked`."""

from __future__ import annotations

import pytest
import torch

from agents import AgentError
from agents.objectives import Masked, MaskedConfig
from agents.objectives.masked import blackened
from perception import VectorSpec
from tests.agents.objectives.moving import evaluate, make_minibatch, make_small_policy, train
from tests.agents.synthetic import IMAGE, VECTOR, make_policy, make_rollout


def make_stripes(seed):
    """Return images of four columns, each dark or bright."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randint(2, (1, 256, 1, 4, 1), generator=generator) * 250
    images = columns.byte().repeat_interleave(2, 3).expand(-1, -1, 6, -1, -1)
    zeros = torch.zeros(1, 256, dtype=torch.long)
    return make_minibatch(images, zeros, zeros.bool())


def test_what_is_masked_is_inferred_from_what_is_not():
    """A column has three patches; of all 12, 4 are masked, and then as dark as a dark column.

    For a masked patch, the other two of its column are masked with a probability of p = 3 / 11 x
    2 / 10 = 0.055. A column that looks dark, which it does with a probability of (1 + p) / 2, is
    bright with one of q = p / (1 + p). The smallest possible error is (1 + p) / 2 x q x (1 - q) =
    0.026 of the squared brightness, 0.10 of that of the mean image.
    """
    policy = make_small_policy()
    objective = Masked(policy, MaskedConfig(cell_size=2, patch_cells=1, share=1 / 3), ())
    train(policy, objective, make_stripes, 100, 2e-2)
    with torch.no_grad():
        loss, metrics = evaluate(policy, objective, make_stripes(999))
    assert 0.05 < loss / metrics["mean_image"] < 0.2


def test_only_masked_cells_count():
    policy = make_policy(specs={"screen": IMAGE, "variables": VECTOR, "map": IMAGE})
    objective = Masked(policy, MaskedConfig(cell_size=5, patch_cells=2), ())
    rollout = make_rollout(policy, 3, 4)
    objective.observe(policy, rollout)
    seen = objective.thumbnails({name: rollout.obs[name][0] for name in ("screen", "map")})
    means = {name: part.mean(0) for name, part in seen.items()}
    spread = (
        sum(part.var(0, correction=0).sum() for part in seen.values()) / objective.seen.mean.numel()
    )
    torch.manual_seed(3)
    with torch.no_grad():
        loss, metrics = evaluate(policy, objective, rollout)
        torch.manual_seed(3)
        images = {name: rollout.obs[name].flatten(0, 1) for name in ("screen", "map")}
        masks = {name: objective._draw(12, (7, 8)) for name in images}
        visible = {name: blackened(part, masks[name], 5) for name, part in images.items()}
        predicted = objective.head(policy.perception.encode(visible)).view(12, 2, 4, 7, 8)
        targets = objective.thumbnails(images)
    total = baseline = count = 0.0
    for i, name in enumerate(images):
        where = masks[name].nonzero().tolist()
        for image, y, x in where:
            target = (targets[name][image, :, y, x] - means[name][:, y, x]) / spread.sqrt()
            total += float((predicted[image, i, :, y, x] - target).square().sum())
            baseline += float(target.square().sum())
        count += 4 * len(where)
    assert float(loss) == pytest.approx(total / count, rel=1e-4)
    assert float(metrics["mean_image"]) == pytest.approx(baseline / count, rel=1e-4)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_the_same_number_of_whole_patches_is_masked_in_each_image(share):
    policy = make_small_policy()
    objective = Masked(policy, MaskedConfig(share=share, patch_cells=3), ())
    mask = objective._draw(50, (7, 8))
    assert mask.shape == (50, 7, 8)
    patches = mask[:, ::3, ::3]
    assert set(patches.sum((1, 2)).tolist()) == {max(1, round(share * 9))}
    whole = patches.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :7, :8]
    assert torch.equal(mask, whole)


def test_masked_cells_are_black_and_all_else_is_unchanged():
    frames = torch.randint(1, 256, (2, 11, 9, 2)).byte()
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    mask[0, 1, 0] = True
    changed = blackened(frames, mask, 4)
    assert not changed[0, 4:8, :4].any()
    rest = torch.ones(11, 9, dtype=torch.bool)
    rest[4:8, :4] = False
    assert torch.equal(changed[0][rest], frames[0][rest])
    assert torch.equal(changed[1], frames[1])


def test_errors_are_one_line():
    policy = make_policy(specs={"obs": VectorSpec(size=3)})
    with pytest.raises(AgentError, match=r"^the objective masked needs images, but"):
        Masked(policy, MaskedConfig(), ())
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=rf"^share must be between 0 and 1, got {share}$"):
            MaskedConfig(share=share)
