"""Tests of `training.initial`."""

from __future__ import annotations

import re

import pytest
import torch

import train
from perception import ImageSpec, PerceptionConfig
from storage.perception_file import Trained, save_perception
from storage.policy_file import About, load_policy, save_policy
from storage.run_folder import RunFolder
from tests.agents.synthetic import assert_same, make_rollout, weights
from tests.programs import refused
from training.assemble import open_training
from training.config import default_config, with_values
from training.errors import TrainingError
from training.supervised.network import build_network

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


@pytest.mark.slow
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


def save(path, policy):
    """Write a policy file, and return its path."""
    save_policy(path, policy, env={"env": "basic"}, about=About())
    return path


def see_file(path, policy, **changes):
    """Write a perception file with new weights for the image encoder of a policy."""
    facts = {
        "specs": policy.specs,
        "config": policy.config,
        "normalize_obs": policy.normalize_obs,
    }
    facts |= changes
    names = [n for n, spec in facts["specs"].items() if isinstance(spec, ImageSpec)]
    specs = {f"seen_{n}": facts["specs"][n] for n in names}
    network = build_network(
        specs,
        facts["config"],
        lambda n: torch.nn.Linear(n, 3),
        normalize_obs=facts["normalize_obs"],
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    save_perception(
        path,
        network.state_dict(),
        specs=specs,
        config=facts["config"],
        normalize_obs=facts["normalize_obs"],
        task={"name": "digits"},
        trained=Trained(task="digits"),
    )
    return network


@pytest.mark.parametrize("layer_norm", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_agent_starts_with_the_encoder_of_a_perception(tmp_path, capsys, layer_norm):
    values = {"perception.layer_norm": layer_norm, "env.variables": True}
    policy = start(tmp_path / "first", "basic", **values).policy
    theirs = see_file(tmp_path / "see.safetensors", policy).perception
    capsys.readouterr()
    agent = start(tmp_path / "run", "basic", perception_from=tmp_path / "see.safetensors", **values)
    assert "starting with the image encoder of" in capsys.readouterr().err
    assert_same(
        agent.policy.perception.encoders["screen"].state_dict(),
        theirs.encoders["seen_screen"].state_dict(),
    )
    new = agent.policy.perception.encoders["variables"].state_dict()
    assert_same(new, policy.perception.encoders["variables"].state_dict())
    if layer_norm:
        ours = agent.policy.perception.norms["screen"].state_dict()
        assert_same(ours, theirs.norms["seen_screen"].state_dict())


def test_an_agent_starts_with_the_encoder_of_another_with_other_memory_and_actions(tmp_path):
    first = start(tmp_path / "first", "basic", seed=5)
    agent = start(
        tmp_path / "second",
        "defend_the_center",
        perception_from=save(tmp_path / "p.safetensors", first.policy),
        **{"agent.normalize_obs": True},
    )
    assert_same(
        agent.policy.perception.encoders["screen"].state_dict(),
        first.policy.perception.encoders["obs"].state_dict(),
    )


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_a_frozen_encoder_computes_the_same_after_updates(tmp_path, rate):
    values = {"agent.normalize_obs": True}
    first = start(tmp_path / "first", "basic", **values).policy
    first.observe({"obs": torch.randint(256, (4, 4, 60, 80, 1), dtype=torch.uint8)})
    source = save(tmp_path / "p.safetensors", first)
    values |= {"agent.encoder_learning_rate": rate, "perception_from": source}
    agent = start(tmp_path / "second", "basic", **values)
    frames = {"obs": torch.randint(256, (5, 60, 80, 1), dtype=torch.uint8)}
    before = agent.policy.perception.encode(frames)
    agent.update(make_rollout(agent.policy, 8, 2))
    same = torch.equal(agent.policy.perception.encode(frames), before)
    assert same == (rate == 0.0)


def test_the_colours_of_indices_are_those_of_the_environment(tmp_path):
    policy = start(tmp_path / "first", "basic").policy
    with torch.no_grad():
        policy.perception.encoders["obs"].decoder.palette.fill_(0.5)
    source = save(tmp_path / "p.safetensors", policy)
    for values in ({"perception_from": source}, {"init_from": source}):
        ours = start(tmp_path / "run", "basic", **values).policy.perception.encoders["obs"]
        assert ours.decoder.palette.unique().numel() > 2
        theirs = policy.perception.encoders["obs"]
        assert_same(ours.encoder.state_dict(), theirs.encoder.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"config": PerceptionConfig()},
            r"was trained with encoder.conv_channels \[32, 64, 64\], not",
        ),
        ({"normalize_obs": False}, "was trained with normalize_obs False, not True"),
        ({"specs": {"obs": ImageSpec(shape=(60, 80, 3))}}, "observes .*, this training .*palette"),
    ],
    ids=str,
)
def test_an_encoder_that_does_not_fit_is_refused_in_one_line(tmp_path, changes, message):
    policy = start(tmp_path / "first", "basic").policy
    see_file(tmp_path / "see.safetensors", policy, **changes)
    with pytest.raises(TrainingError, match=message) as refusal:
        start(tmp_path / "run", "basic", perception_from=tmp_path / "see.safetensors")
    assert "\n" not in str(refusal.value)


def test_what_has_no_images_takes_no_encoder(tmp_path):
    policy = start(tmp_path / "first", "basic").policy
    see_file(tmp_path / "see.safetensors", policy)
    with pytest.raises(TrainingError, match="encodes images, and this training observes none"):
        start(tmp_path / "run", perception_from=tmp_path / "see.safetensors")
    with pytest.raises(ValueError, match="leave out perception_from"):
        start(tmp_path / "x", init_from=tmp_path, perception_from=tmp_path)


@pytest.mark.parametrize("agent", ["ppo", pytest.param("a2c", marks=pytest.mark.slow)])
@pytest.mark.parametrize("rate", [0.0, 1e-5])
def test_encoders_are_frozen_or_have_their_own_learning_rate(tmp_path, agent, rate):
    values = {"agent.encoder_learning_rate": rate, "agent.anneal_learning_rate": True}
    config = with_values(
        default_config("basic", agent),
        {**SMALL, **values, "total_env_steps": 64, "record": False, "precision": "float32"},
    )
    with open_training(config, RunFolder(tmp_path), []) as training:
        policy = training.agent.policy
        before = {name: p.detach().clone() for name, p in policy.named_parameters()}
        for _ in range(2):
            training.update(training.collect())
        moved = {n: float((p - before[n]).abs().max()) for n, p in policy.named_parameters()}
    groups = training.agent.optimizer.param_groups
    assert len(groups) == (2 if rate else 1)
    left = 1 - 1 / training.agent.total_updates
    assert [group["lr"] for group in groups] == pytest.approx(
        [r * left for r in (config.agent.learning_rate, rate)][: len(groups)]
    )
    encoder = [n for n in moved if ".encoders." in n]
    largest = max(moved[n] for n in encoder)
    assert largest <= 100 * rate
    assert (largest > 0) == (rate > 0)
    assert max(moved[n] for n in moved if n not in encoder) > 2 * largest
