"""Tests of `agents.objectives.distill`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from agents import A2C, A2CConfig, AgentError
from agents.objectives import Distill, DistillConfig
from agents.rollout import Minibatch
from tests.agents.synthetic import (
    assert_same,
    make_obs,
    make_policy,
    make_rollout,
    taught,
    weights,
)

STEPS, NUM_ENVS = 8, 4


def make_student(teacher=None, config=None, value_scale=1.0, **options):
    """Return an agent that learns from a teacher alone."""
    policy = make_policy(**options)
    objective = Distill(policy, config or DistillConfig(), ())
    if teacher is not None:
        objective.take_teacher(teacher, num_envs=NUM_ENVS, value_scale=value_scale)
    settings = A2CConfig(loss_coef=0.0, learning_rate=0.01, max_grad_norm=10.0)
    objectives = {"distill": objective}
    return A2C(policy, settings, num_envs=NUM_ENVS, total_updates=1, objectives=objectives)


def decided(policy):
    """Make a policy as decided as a trained one."""
    with torch.no_grad():
        policy.actor.layer.weight.mul_(300.0)
    return policy


def test_the_loss_is_the_divergence_that_scipy_computes():
    teacher = decided(make_policy(memory="gru", seed=1))
    student = make_student(teacher, DistillConfig(value_coef=0.25), value_scale=3.0)
    rollout = make_rollout(student.policy, STEPS, NUM_ENVS)
    objective = student.objectives["distill"]
    targets = objective.targets_of(None, rollout)
    output = student.policy(rollout.obs, rollout.memory_state, rollout.episode_starts)
    fields = {f.name: getattr(rollout, f.name, None) for f in dataclasses.fields(Minibatch)}
    batch = Minibatch(**fields | {"targets": targets})
    loss, metrics = objective.loss(student.policy, output, batch)
    with torch.no_grad():
        theirs = teacher(rollout.obs, teacher.initial_state(NUM_ENVS), rollout.episode_starts)
    p, q = (o.distribution.probabilities().detach().numpy() for o in (theirs, output))
    kl = rel_entr(p.astype(np.float64), q).sum(-1).mean()
    error = np.square(3.0 * theirs.values.numpy() - output.values.detach().numpy()).mean()
    assert kl > 0.05
    metrics = {name: float(metric.detach()) for name, metric in metrics.items()}
    assert metrics["kl"] == pytest.approx(kl, rel=1e-4)
    assert metrics["agreement"] == (p.argmax(-1) == q.argmax(-1)).mean()
    assert float(loss.detach()) == pytest.approx(kl + 0.25 * error, rel=1e-4)


def test_the_memory_of_the_teacher_runs_along_from_rollout_to_rollout():
    teacher = decided(make_policy(memory="lstm", seed=1))
    objective = make_student(teacher).objectives["distill"]
    rollout = make_rollout(make_policy(), 2 * STEPS, NUM_ENVS)
    halves = []
    for half in (slice(0, STEPS), slice(STEPS, None)):
        obs = {name: part[half] for name, part in rollout.obs.items()}
        starts = rollout.episode_starts[half]
        part = dataclasses.replace(rollout, obs=obs, episode_starts=starts)
        halves.append(objective.targets_of(None, part)["distill/values"])
    with torch.no_grad():
        whole = teacher(rollout.obs, teacher.initial_state(NUM_ENVS), rollout.episode_starts)
    torch.testing.assert_close(torch.cat(halves), whole.values)


@pytest.mark.parametrize(("memory", "agreement"), [("none", 0.9), ("gru", 0.6)])
def test_a_student_copies_its_teacher(memory, agreement):
    """Also on observations not seen before; with memory, with a quarter of the width."""
    teacher = decided(make_policy(memory=memory, memory_size=24, seed=1))
    student = make_student(teacher, memory=memory, memory_size=6, seed=2)
    first = last = None
    for seed in range(100):
        metrics = student.update(make_rollout(student.policy, STEPS, NUM_ENVS, seed=seed))
        first, last = first or metrics, metrics
    assert last["objectives/distill/kl"] < 0.5 * first["objectives/distill/kl"]
    obs, starts = make_obs(teacher.specs, 20, 20, seed=999), torch.zeros(20, 20, dtype=torch.bool)
    with torch.no_grad():
        chosen = [
            policy(obs, policy.initial_state(20), starts).distribution.mode()
            for policy in (teacher, student.policy)
        ]
    assert (chosen[0] == chosen[1]).float().mean() > agreement
    assert len(chosen[0].unique()) > 1


def test_the_teacher_does_not_change_and_is_not_saved():
    teacher = make_policy(memory="gru", seed=1)
    student, before = make_student(teacher), weights(teacher)
    student.update(make_rollout(student.policy, STEPS, NUM_ENVS))
    assert_same(weights(teacher), before)
    assert list(student.objectives["distill"].state_dict()) == ["teacher_state"]


def test_from_the_teacher_alone_rewards_do_not_matter():
    updated = []
    for coef, reward in ((0.0, 1.0), (0.0, -7.0), (1.0, -7.0)):
        student = make_student(make_policy(seed=1))
        student.config = dataclasses.replace(student.config, loss_coef=coef)
        rollout = make_rollout(student.policy, STEPS, NUM_ENVS)
        torch.manual_seed(0)
        student.update(dataclasses.replace(rollout, rewards=reward * rollout.rewards))
        updated.append(weights(student.policy))
    assert_same(updated[0], updated[1])
    assert any(not torch.equal(updated[1][name], updated[2][name]) for name in updated[1])


def test_without_a_teacher_nothing_is_learned():
    student = make_student()
    with pytest.raises(AgentError, match="needs a teacher; add --teacher RUN"):
        student.update(make_rollout(student.policy, STEPS, NUM_ENVS))
    assert taught({}, student.policy, NUM_ENVS) == {}
