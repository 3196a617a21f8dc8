"""Tests of `agents.objectives.reported`."""

from __future__ import annotations

import itertools

import pytest
import torch

from agents.objectives.reported import NOT_REPORTED, mean_reported, share_reported
from envs.doom.sight import NOT_DRAWN


def test_environments_mark_missing_targets_as_objectives_expect():
    assert NOT_REPORTED == NOT_DRAWN


def test_the_mean_is_that_of_the_reported_ones():
    target = torch.full((4, 8), NOT_REPORTED)
    target[:, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    values = torch.arange(32.0).view(4, 8)
    assert share_reported(target) == 1 / 8
    assert mean_reported(values, target, torch.tensor(1 / 8)) == values[:, 0].mean()


def test_it_is_the_weighted_mean_of_any_parts():
    torch.manual_seed(0)
    target = torch.where(torch.rand(1, 64) < 0.2, 1.0, NOT_REPORTED)
    values, share = torch.rand(1, 64), share_reported(target)
    whole = mean_reported(values, target, share)
    cuts = [0, 5, 6, 40, 64]
    parts = [slice(*pair) for pair in itertools.pairwise(cuts)]
    weighted = [
        mean_reported(values[:, part], target[:, part], share) * (part.stop - part.start) / 64
        for part in parts
    ]
    torch.testing.assert_close(torch.stack(weighted).sum(), whole)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_reported_has_no_influence_on_gradients(bad):
    values = torch.tensor([[2.0, bad]], requires_grad=True)
    mean = mean_reported(values, torch.tensor([[1.0, NOT_REPORTED]]), torch.tensor(0.5))
    (gradient,) = torch.autograd.grad(mean, values)
    assert mean == 2
    assert gradient.tolist() == [[1.0, 0.0]]


def test_without_any_target_it_is_0():
    nothing = torch.full((2, 3), NOT_REPORTED)
    assert mean_reported(torch.rand(2, 3), nothing, share_reported(nothing)) == 0
