"""Tests of `evaluation.explain.explain`; `tests.commands.test_explain` runs all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gymnasium import spaces

from envs import EnvConfig
from evaluation.explain.explain import Explainer, Plan
from perception import ImageSpec
from storage.policy_file import About, PolicyFile
from tests.agents.synthetic import make_policy


def test_a_finished_part_is_kept_until_the_policy_or_the_plan_changes(tmp_path):
    pytest.importorskip("captum")
    spec = {"obs": ImageSpec(shape=(8, 8, 1))}
    files = [
        PolicyFile(
            policy=make_policy(specs=spec, actions=spaces.Discrete(2), encoder="mlp", seed=seed),
            env={},
            about=About(),
        )
        for seed in (0, 1)
    ]
    computed = []

    def part(file, plan):
        explainer = Explainer(file, EnvConfig(), plan, tmp_path)
        return explainer._part("checks", lambda: computed.append(1) or {"count": len(computed)})

    plan = Plan()
    assert [part(files[0], plan) for _ in range(2)] == [{"count": 1}] * 2
    (tmp_path / "checks.json").write_text("{")
    assert part(files[0], plan) == {"count": 2}
    assert part(files[1], plan) == {"count": 3}
    assert part(files[1], replace(plan, states=9)) == {"count": 4}
