"""Tests of `commands.see`, and of `evaluate.py score` with a perception."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, replace

import pytest
import torch

import evaluate
import train
from agents import observation_specs
from commands.commandline import UsageError
from commands.see import read_command_line
from envs import SCENARIOS, DoomEnv
from evaluation.errors import EvaluationError
from perception import ImageSpec
from perception.lookup import UnknownNameError
from storage.checkpoint import under
from storage.files import FileError
from storage.perception_file import find_perception
from storage.run_folder import RunFolder
from tests.training.supervised.data import made_scenes, write_quadrants
from training.assemble import open_training
from training.errors import TrainingError
from training.supervised import TASKS
from training.supervised.collected import check_going_on
from training.supervised.config import default_see_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the run folder of a perception that was trained by the command."""
    folder = tmp_path_factory.mktemp("see")
    data = write_quadrants(folder / "data")
    options = f"--encoder mlp --epochs 3 --data {data} --classes 4 --run-dir {folder / 'run'}"
    assert train.main(["see:digits", *options.split()]) == 0
    return folder / "run"


def test_a_perception_is_trained_and_scored(trained, capsys):
    assert evaluate.main(["score", str(trained)]) == 0
    output = capsys.readouterr().out
    assert "see:digits: 40 examples of the test set" in output
    assert "accuracy" in output
    result = json.loads((trained / "evaluation.json").read_text())
    measured = result["measures"]["accuracy"]
    assert measured["low"] <= measured["value"] <= measured["high"]
    assert measured["baseline"] == 0.25
    assert result["test_examples"] == 40
    assert (trained / "score-confusion.png").read_bytes().startswith(b"\x89PNG")


def test_torchrun_is_refused(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(UsageError, match="see:digits is trained in one process; leave out torchr"):
        train.main(["see:digits"])


def test_options_of_policies_are_refused(trained):
    with pytest.raises(UsageError, match=r"--episodes is for policies, and .* is a perception"):
        evaluate.main(["score", str(trained), "--episodes", "3"])


@pytest.mark.parametrize("command", ["replay", "compare", "export"])
def test_commands_of_policies_say_what_it_is(trained, command):
    with pytest.raises(FileError, match="holds a perception without an agent"):
        evaluate.main([command, str(trained)])


def test_it_is_left_out_of_pictures_of_agents(trained):
    with pytest.raises(EvaluationError, match="holds a perception; only runs of agents are drawn"):
        evaluate.main(["plot", str(trained)])


def test_an_agent_is_not_trained_in_its_folder(trained):
    with pytest.raises(FileError, match="holds a perception without an agent; choose another"):
        train.main(["CartPole-v1", "--run-dir", str(trained)])


def test_data_that_are_gone_are_reported(trained, capsys):
    labels = trained.parent / "data" / "t10k-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.unlink()
    try:
        with pytest.raises(FileError, match="has no t10k-labels-idx1-ubyte"):
            evaluate.main(["score", str(trained)])
    finally:
        labels.write_bytes(content)


@pytest.mark.parametrize("task", TASKS)
def test_defaults_are_those_of_the_task(task):
    assert asdict(read_command_line([f"see:{task}"])) == asdict(default_see_config(task))


def test_flags_reach_every_part():
    flags = "--encoder nature --features 32 --memory lstm --schedule step --classes 5 --no-augment"
    config = read_command_line(["see:digits", *flags.split()])
    assert config.perception.encoder.features == 32
    assert config.perception.memory_name == "lstm"
    assert (config.schedule, config.task.classes, config.augment) == ("step", 5, False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["see:"], UsageError, "name a task: see:digits"),
        (["see:nothing"], UnknownNameError, "unknown task to see 'nothing'; choose from digits"),
        (["see:digits", "--epoch", "3"], UsageError, "did you mean --epochs"),
        (["see:digits", "--encoder", "x"], UnknownNameError, "unknown encoder 'x'"),
        (["see:digits", "--epochs", "0"], UsageError, "epochs must be at least 1, got 0"),
        (["see:objects", "--like", "nowhere"], UnknownNameError, "unknown scenario 'nowhere'"),
        (["see:digits", "--like", "basic"], TrainingError, "--like is for .*: see:objects"),
    ],
)
def test_what_cannot_be_obeyed_is_one_line(arguments, error, message):
    with pytest.raises(error, match=message) as refusal:
        train.main(arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_is_like_a_scenario_observes_and_encodes_as_its_agents(scenario):
    config = read_command_line(["see:objects", "--like", scenario, "--epochs", "3"])
    agent = train.read_command_line([scenario]).training
    env = DoomEnv(replace(agent.env, sound=False))  # OpenAL may be missing.
    specs = observation_specs(env.observation_space, env.metadata)
    image = next(spec for spec in specs.values() if isinstance(spec, ImageSpec))
    assert (config.task.spec.shape, config.task.spec.channels) == (image.shape, image.channels)
    assert config.perception.encoder == agent.perception.encoder
    assert config.epochs == 3


@pytest.mark.parametrize("scenario", ["predict_position", "my_way_home"])
def test_an_agent_starts_with_what_was_trained_for_its_scenario(tmp_path, monkeypatch, scenario):
    """Two commands, without a word about sizes, stacked frames or normalisation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "training.supervised.seen.collect_scenes", lambda config, stops: made_scenes(40, config)
    )
    options = ["--epochs", "1", "--run-dir", "seen"]
    assert train.main(["see:objects", "--like", scenario, *options]) == 0
    options = ["--num-envs", "2", "--num-workers", "1", "--num-groups", "1", "--eval-envs", "none"]
    command = train.read_command_line([scenario, "--perception-from", "seen", *options])
    assert command.training.agent.normalize_obs
    with open_training(command.training, RunFolder(tmp_path / "run"), []) as training:
        state = training.agent.policy.perception.encoders["obs"].state_dict()
    theirs = under("perception.encoders.image.", find_perception(tmp_path / "seen").tensors)
    for name in theirs.keys() - {"decoder.palette"}:
        torch.testing.assert_close(state[name], theirs[name])
    command = train.read_command_line([scenario, "--perception-from", "seen", "--no-normalize-obs"])
    assert not command.training.agent.normalize_obs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("task", "collects"), [("objects", "seen.collect_scenes"), ("video", "video.collect_clips")]
)
def test_a_signal_ends_collecting(tmp_path, monkeypatch, capfd, task, collects, number):
    def collect(config, stops):
        os.kill(os.getpid(), number)
        check_going_on(stops)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"training.supervised.{collects}", collect)
    assert train.main([f"see:{task}"]) == 128 + number
    output = capfd.readouterr()
    assert "collecting" in output.err
    assert "interrupted while collecting" in output.out
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
