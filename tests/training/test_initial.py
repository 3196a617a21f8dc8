"""Tests of `training.initial`."""

from __future__ import annotations

import re

import pytest
import torch

import train
from storage.policy_file import load_policy
from storage.run_folder import RunFolder
from tests.agents.synthetic import assert_same, weights
from tests.programs import refused
from training.assemble import open_training
from training.config import default_config, with_values

SMALL = {
    "num_envs": 2,
    "num_groups": 1,
    "num_workers": 1,
    "agent.rollout_length": 8,
    "eval_envs": "none",
}


def start(folder, env="CartPole-v1", agent="ppo", **values):
    """Return a training's agent before its first update, and what it printed."""
    config = with_values(default_config(env, agent), {**SMALL, **values})
    with open_training(config, RunFolder(folder), []) as training:
        return training.agent


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"agent.normalize_obs": True, "agent.normalize_returns": True},
        {"agent.normalize_returns": True, "agent.reward_scale": 0.1},
    ],
    ids=str,
)
def test_a_policy_starts_where_another_ended(tmp_path, values, capsys):
    config = with_values(default_config("CartPole-v1"), {**SMALL, "total_env_steps": 64, **values})
    train.train(config, RunFolder(tmp_path / "first"), [])
    file = load_policy(tmp_path / "first" / "policy.safetensors")
    agent = start(tmp_path / "second", init_from=tmp_path / "first", **values)
    assert "starting from" in (said := capsys.readouterr().err)
    assert "first: perception, actor, critic\n" in said
    theirs, ours = weights(file.policy), weights(agent.policy)
    for part in ("perception", "actor"):
        names = [name for name in theirs if name.startswith(part)]
        assert names
        assert_same({n: ours[n] for n in names}, {n: theirs[n] for n in names})
    # The values predict the same native rewards.
    obs, starts = {"obs": torch.randn(5, 4)}, torch.ones(5, dtype=torch.bool)
    before = file.policy.value(obs, file.policy.initial_state(5), starts)
    after = agent.policy.value(obs, agent.policy.initial_state(5), starts)
    torch.testing.assert_close(after * agent.value_unit, before * file.about.value_unit)
    if "agent.normalize_returns" in values:
        assert agent.value_unit == pytest.approx(file.about.value_unit, rel=1e-5)


def test_another_task_gets_perception_alone(tmp_path, doom_run, capsys):
    default = default_config("deadly_corridor", memory="gru")
    config = with_values(default, {**SMALL, "agent.normalize_obs": False, "init_from": doom_run})
    source = load_policy(doom_run / "policy.safetensors")
    with open_training(config, RunFolder(tmp_path), []) as training:
        ours, theirs = weights(training.agent.policy), weights(source.policy)
    assert "perception; new: actor and critic" in capsys.readouterr().err
    assert_same(
        {n: v for n, v in ours.items() if n.startswith("perception")},
        {n: v for n, v in theirs.items() if n.startswith("perception")},
    )
    assert ours["actor.layer.weight"].shape != theirs["actor.layer.weight"].shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["Acrobot-v1"], r"observes \{'obs': 4\}, this training \{'obs': 6\}"),
        (["CartPole-v1", "--memory", "gru"], "with memory.name none, not gru"),
        (["CartPole-v1", "--normalize-obs"], "with normalize_obs False, not True"),
        (["CartPole-v1", "--init-from", "nowhere"], "there is no run at nowhere"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_anything_is_removed(
    tmp_path, cartpole_run, options, message, capsys
):
    kept = tmp_path / "policy.safetensors"
    kept.write_bytes(b"kept")
    (tmp_path / "config.json").write_text("{}")
    command = [options[0], "--init-from", str(cartpole_run), *options[1:], "--fresh"]
    assert re.search(message, refused(capsys, train, *command, "--run-dir", tmp_path))
    assert kept.read_bytes() == b"kept"
