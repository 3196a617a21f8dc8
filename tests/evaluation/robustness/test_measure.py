"""Tests of `evaluation.robustness.measure`; those of its command play with it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from gymnasium import spaces

from envs import EnvConfig
from evaluation.entries import Contestant
from evaluation.errors import EvaluationError
from evaluation.protocol import Protocol
from evaluation.robustness.measure import Cell, Measured, Plan, Store, check_attackable
from storage.policy_file import About, PolicyFile, digest
from tests.agents.synthetic import IMAGE, make_policy

MEASURED = Measured(returns=[1.0, -2.5], length=3.5, seconds=0.1, effect={"distance": 0.5})


def contestant(tmp_path, **options):
    policy = make_policy(specs={"obs": IMAGE}, **options)
    file = PolicyFile(policy=policy, env={}, about=About())
    return Contestant(path=tmp_path, file=file, config=EnvConfig(env="ALE/Pong-v5"))


def plan(**options):
    values = {"attacks": ("fgsm", "transfer"), "epsilons": (0.5, 1.0), "shifts": ("darker", "hud")}
    return Plan(protocol=Protocol(episodes=2), greedy=False, **{**values, **options})


def test_cells_are_the_controls_then_attacks_at_each_epsilon_then_shifts(tmp_path):
    cells = plan().cells(contestant(tmp_path))
    assert [cell.key for cell in cells] == [
        *("clean", "random", "fgsm 0.5", "fgsm 1", "transfer 0.5", "transfer 1", "darker")
    ]


def test_a_transferred_attack_is_one_of_its_policy(tmp_path):
    first, second = (contestant(tmp_path, seed=seed).file for seed in (0, 1))
    cell = Cell(name="transfer", epsilon=1.0)
    keys = {plan(source=source).key(cell) for source in (first, second)}
    assert keys == {f"transfer 1 from {digest(file.policy)}" for file in (first, second)}
    assert len(keys) == 2
    assert plan(source=first).key(Cell(name="clean")) == "clean"


def test_what_cannot_be_attacked_is_refused(tmp_path):
    recurrent, plain = (contestant(tmp_path, memory=memory) for memory in ("lstm", "none"))
    through_memory = plan(attacks=("pgd10_memory",))
    check_attackable(recurrent, through_memory)
    with pytest.raises(EvaluationError, match=r"has no memory for pgd10_memory; leave it out"):
        check_attackable(plain, through_memory)
    check_attackable(plain, plan(source=recurrent.file))
    exported = replace(plain, file=SimpleNamespace(policy=plain.file.policy))
    with pytest.raises(EvaluationError, match=r"is an ONNX file, which has no gradients"):
        check_attackable(exported, plan())
    other = contestant(tmp_path, actions=spaces.Discrete(4)).file
    with pytest.raises(EvaluationError, match=r"--from has other observations or actions than"):
        check_attackable(plain, plan(source=other))


def test_a_digest_is_that_of_the_weights():
    first, same, other = (make_policy(specs={"obs": IMAGE}, seed=seed) for seed in (0, 0, 1))
    assert digest(first) == digest(same) != digest(other)
    with torch.no_grad():
        next(same.parameters()).view(-1)[0] += 1e-3
    assert digest(first) != digest(same)


def test_cells_are_kept_as_long_as_they_are_about_the_same(tmp_path):
    path = tmp_path / "attack.json"
    store = Store.open(path, {"policy": "a"})
    assert store.cells == {}
    store.add("clean", MEASURED)
    assert Store.open(path, {"policy": "a"}).cells == {"clean": MEASURED}
    assert Store.open(path, {"policy": "b"}).cells == {}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"about": {}}', '{"about": {}, "cells": {"clean": {"returns": "x"}}}']
)
def test_a_damaged_file_holds_no_cells(tmp_path, content):
    path = tmp_path / "attack.json"
    path.write_text(content)
    assert Store.open(path, {}).cells == {}
