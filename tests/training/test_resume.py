"""Tests of `training.resume`; tests/test_resume.py tests whole trainings."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents import OBJECTIVES
from envs.moved import own_files
from evaluation.seeds import TRAINING, first_training_seed
from storage.files import DamagedError, FileError
from storage.run_folder import RunFolder
from tests.agents.synthetic import assert_same, weights
from tests.envs.maps import room, write_wad
from tests.storage.hostile import VALUES, leaves, put, refused_or_harmless
from tests.storage.policies import make_agent, update
from training.autotune import with_setting
from training.config import default_config, dotted_fields, with_values
from training.progress import Progress
from training.resume import check_resumable, is_complete, resume
from training.saving import save_all, save_as_policy_file

CONFIG = with_values(default_config("CartPole-v1"), {"seed": 3, "eval_every": 100})
ALL = tuple(OBJECTIVES)
COLLECTOR_STATE = {"actions/0": torch.arange(3)}


def save(folder, agent, env_steps, say=pytest.fail):
    progress = Progress(env_steps=env_steps, returns=[1.0], best_score=2.0)
    return save_all(folder, agent, CONFIG, progress, COLLECTOR_STATE, say)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def test_a_run_is_complete_when_nothing_is_left_to_do(folder):
    assert not is_complete(folder, 64)
    agent = make_agent()
    folder.path.mkdir()
    folder.write_config(CONFIG.as_dict(), torch.float32)
    save(folder, agent, 64)
    assert is_complete(folder, 64)
    assert not is_complete(folder, 65)
    # A program was killed after the checkpoint, but before the policy.
    save_as_policy_file(folder, agent, CONFIG, Progress(env_steps=32))
    assert not is_complete(folder, 64)
    # It stopped improving.
    save_all(folder, agent, CONFIG, Progress(env_steps=65, evaluations_since_best=3), {}, print)
    assert not is_complete(folder, 100)
    patient = with_values(CONFIG, {"patience": 3}).as_dict()
    folder.write_config(patient, torch.float32)
    assert is_complete(folder, 100)
    folder.checkpoints[0].write_bytes(b"damaged")
    assert not is_complete(folder, 64)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_training_begins_where_nothing_is_saved(folder, fresh):
    agent = make_agent()
    before = weights(agent.policy)
    if fresh:
        save(folder, make_agent(seed=1), 64)
    progress, state = resume(folder, agent, with_values(CONFIG, {"fresh": fresh}))
    first = first_training_seed(3)
    assert first >= TRAINING
    assert progress == Progress(next_episode_seed=first, next_evaluation=100)
    assert state == {}
    assert_same(weights(agent.policy), before)


def test_what_was_saved_is_resumed(folder, capsys):
    saved, resumed = make_agent(), make_agent(seed=1)
    update(saved, range(2))
    assert save(folder, saved, 64)
    progress, state = resume(folder, resumed, CONFIG)
    assert progress == Progress(env_steps=64, returns=[1.0], best_score=2.0)
    assert_same(state, COLLECTOR_STATE)
    assert_same(weights(resumed.policy), weights(saved.policy))
    assert capsys.readouterr().err == f"resuming at 64 env steps in {folder.path}\n"


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(folder, capsys):
    for env_steps in (64, 128):
        save(folder, make_agent(seed=env_steps), env_steps)
    newest, older = folder.checkpoints
    damage(newest)
    resumed = make_agent()
    progress, _ = resume(folder, resumed, CONFIG)
    assert progress.env_steps == 64
    assert_same(weights(resumed.policy), weights(make_agent(seed=64).policy))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{newest} is damaged")
    assert first.endswith("; resuming from the checkpoint before it")
    assert second.startswith("resuming at 64 env steps")
    damage(older)
    with pytest.raises(DamagedError, match="is damaged"):
        resume(folder, resumed, CONFIG)


def test_a_policy_without_a_checkpoint_is_not_trained_over(folder):
    agent = make_agent()
    save_as_policy_file(folder, agent, CONFIG, Progress())
    with pytest.raises(FileError, match="holds a policy but no checkpoint to resume from; choose"):
        resume(folder, agent, CONFIG)
    assert resume(folder, agent, with_values(CONFIG, {"fresh": True}))[0].env_steps == 0


# With which configuration a run may be resumed.


def everything():
    return default_config("basic", "ppo", memory="lstm", objectives=ALL)


def other_value(name, value):
    """Return another valid value of a field."""
    other = {
        "env.env": "my_way_home",
        "env.observation": "gray",
        "env.extra_channels": ("depth",),
        "env.buttons": ("ATTACK",),
        "env.actions": "groups",
        "env.delta_bins": 7,
        "env.frame_skip": 2,
        "env.skill": 3,
        "env.opponent": "still",
        "env.time_limit": 100,
        "perception.encoder.conv_channels": (1, 2, 3),
        "perception.encoder.conv_strides": (3, 2, 1),
        "perception.vectors.hidden_sizes": (7,),
        "perception.sound.sound_input": "waveform",
        "agent.value_clip_coef": 0.5,
        "agent.target_kl": 0.5,
        "objectives.variables.names": ("HEALTH",),
        "device": "cpu",
        "precision": "float32",
        "inference": "eager",
        "gradients": "eager",
        "run_dir": Path("elsewhere"),
        "env.files": ("cfg=0",),
        "env.env_kwargs": ("size=3",),
        "env.shaping": ("damage",),
        "env.wrappers": ("own:Wrapper",),
        "import_": ("own.py",),
        "eval_envs": "none",
        "track": "wandb",
    }
    if name in other:
        return other[name]
    if name.endswith(".coef_schedule"):
        return "linear"
    if isinstance(value, bool):
        return not value
    if value is None or isinstance(value, int):
        return 2 * (value or 1)
    assert isinstance(value, float), name
    return value / 2 or 0.25


@pytest.mark.parametrize("name", [*dotted_fields(everything(), lambda metadata: True)])
def test_a_run_is_resumed_only_if_what_is_learned_stays_the_same(tmp_path, name):
    config = everything()
    folder = RunFolder(tmp_path)
    folder.write_config(config.as_dict(), torch.float32)
    check_resumable(folder, config)
    if name == "num_groups":
        config = with_values(config, {"num_envs": 64})
        folder.write_config(config.as_dict(), torch.float32)
    value = config
    for part in name.split("."):
        value = getattr(value, part)
    changed = with_values(config, {name: other_value(name, value)})
    assert changed != config
    if name in dotted_fields(config, lambda metadata: metadata.get("resumable", False)):
        check_resumable(folder, changed)
        return
    with pytest.raises(FileError) as refusal:
        check_resumable(folder, changed)
    message = str(refusal.value)
    assert f"holds a run with {name} " in message
    assert message.endswith("choose another --run-dir, or start over with --fresh")


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({}, {"agent": "a2c"}, "agent.name ppo, not a2c"),
        ({}, {"encoder": "impala"}, "perception.encoder.name nature, not impala"),
        ({"memory": "lstm"}, {"memory": "gru"}, "perception.memory.name lstm, not gru"),
        ({}, {"objectives": ("contrastive",)}, "objectives none, not contrastive"),
        ({"objectives": ALL}, {}, f"objectives {' '.join(ALL)}, not none"),
        (
            {"objectives": ALL},
            {"objectives": ALL[::-1]},
            f"objectives {' '.join(ALL)}, not {' '.join(ALL[::-1])}",
        ),
    ],
)
def test_a_run_is_not_resumed_with_other_parts(tmp_path, before, now, words):
    folder = RunFolder(tmp_path)
    folder.write_config(default_config("CartPole-v1", **before).as_dict(), torch.float32)
    with pytest.raises(FileError, match=f"holds a run with {words};"):
        check_resumable(folder, default_config("CartPole-v1", **now))


def test_a_field_that_is_newer_than_a_run_was_its_default(tmp_path):
    folder, config = RunFolder(tmp_path), default_config("basic")
    stored = config.as_dict()
    del stored["env"]["enemy_in_view"], stored["perception"]["encoder"]["conv_strides"]
    folder.write_config(stored, torch.float32)
    check_resumable(folder, config)
    with pytest.raises(FileError, match=r"with env\.enemy_in_view False, not True"):
        check_resumable(folder, with_values(config, {"env.enemy_in_view": True}))


@pytest.mark.parametrize("stored", [{}, {"objectives": 7}, {"objectives": {}, "agent": 3}])
def test_a_configuration_that_is_none_is_refused(tmp_path, stored):
    folder = RunFolder(tmp_path)
    folder.write_config(stored, torch.float32)
    with pytest.raises(FileError):
        check_resumable(folder, default_config("basic"))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_a_configuration_says(tmp_path, data):
    config, folder = default_config("CartPole-v1"), RunFolder(tmp_path)
    folder.write_config(config.as_dict(), torch.float32)
    content = json.loads(folder.config_file.read_text())
    keys = data.draw(st.sampled_from(sorted(leaves(content), key=str)))
    put(content, keys, data.draw(st.sampled_from(VALUES)))
    folder.config_file.write_text(json.dumps(content))
    with refused_or_harmless(FileError):
        check_resumable(folder, config)
    with refused_or_harmless(FileError):
        with_setting(config, folder.read_config())


def test_a_run_is_resumed_wherever_its_files_are_but_not_with_others(tmp_path):
    old, new = write_wad(tmp_path / "own.wad", room()), tmp_path / "new" / "own.wad"
    new.parent.mkdir()
    files = own_files(str(old))
    config = with_values(default_config(str(old)), {"env.files": files})
    folder = RunFolder(tmp_path / "run")
    folder.write_config(config.as_dict(), torch.float32)
    check_resumable(folder, default_config(str(old)))
    old.rename(new)
    check_resumable(folder, default_config(str(new)))
    with pytest.raises(FileError, match=r"env\.env .*own\.wad, not basic"):
        check_resumable(folder, default_config("basic"))
    with pytest.raises(FileError, match="other files: its map is MAP01, not nothing; restore"):
        check_resumable(folder, default_config(f"{new}:MAP01"))
    new.write_bytes(new.read_bytes() + b"\0")
    with pytest.raises(FileError, match=r"other files: the SHA-256 of .*own\.wad begins with"):
        check_resumable(folder, default_config(str(new)))


@pytest.mark.parametrize("files", [5, "cfg=0", {"cfg": 0}, [5], [["cfg"]]])
def test_notes_about_files_that_are_damaged_are_not_obeyed(tmp_path, files):
    config = default_config(str(write_wad(tmp_path / "own.wad", room())))
    stored = config.as_dict()
    stored["env"]["files"] = files
    folder = RunFolder(tmp_path)
    folder.write_config(stored, torch.float32)
    with contextlib.suppress(FileError):
        check_resumable(folder, config)
