"""Tests of `deploy.students`."""

from __future__ import annotations

import pytest
import torch

from agents import Policy
from deploy.errors import DeployError
from deploy.students import num_parameters, student_config
from perception import ENCODERS, MEMORIES, PerceptionConfig
from tests.agents.synthetic import IMAGE, SENSES, VECTOR, make_policy, side_by_side

SPECS = {"screen": IMAGE, "variables": VECTOR, **SENSES}


@pytest.mark.parametrize(("encoder", "memory"), side_by_side(ENCODERS, MEMORIES))
def test_a_student_has_almost_as_many_parameters_as_it_may(encoder, memory):
    """Of the networks at their usual sizes, as they are trained."""
    actions = make_policy().action_space
    config = PerceptionConfig(encoder=ENCODERS[encoder][0](), memory=MEMORIES[memory][0]())
    with torch.device("meta"):
        teacher = Policy(SPECS, actions, config)
    for share in (1 / 2, 1 / 16):
        with torch.device("meta"):
            student = Policy(SPECS, actions, student_config(teacher, share))
        assert 0.4 * share < num_parameters(student) / num_parameters(teacher) <= share
        ours, theirs = student.config.as_dict(), config.as_dict()
        for part in ("encoder", "memory"):
            for field, value in ours[part].items():
                same = field in ("name", "conv_strides") or "layers" in field or "heads" in field
                assert value == theirs[part][field] or not same, field


def test_narrow_layers_become_narrower_than_four():
    teacher = make_policy(specs={"obs": VECTOR}, encoder="mlp", memory_size=8)
    assert student_config(teacher, 0.25).encoder.mlp_sizes[0] < 4


def test_a_budget_that_nothing_fits_is_refused():
    with pytest.raises(DeployError, match="has at most 0 parameters: with the encoder nature and"):
        student_config(make_policy(specs=SPECS), 1e-4)
