"""Tests of `deploy.card`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from deploy.card import card, origin, read_evaluation, training_command
from evaluation.protocol import Protocol, native
from storage.files import FileError
from storage.policy_file import About, load_policy
from storage.run_folder import BEST, EVALUATION, RunFolder


@pytest.fixture
def best(scored):
    """The policy that was scored."""
    return load_policy(scored / BEST)


@pytest.fixture
def config(best, scored):
    """The environment that it was scored in."""
    return native(best, scored, trust=False)


def test_the_card_shows_the_score_as_text_and_as_metadata_of_the_hub(scored, best, config):
    pytest.importorskip("huggingface_hub", reason='pip install -e ".[hub]"')
    record = RunFolder(scored).read_record()
    text = card(
        repository="me/cartpole",
        folder="hub/me--cartpole",
        config=config,
        about=best.about,
        record=record,
        evaluation=read_evaluation(scored / EVALUATION, best, config),
    )
    scores = json.loads((scored / EVALUATION).read_text())
    _, metadata, text = text.split("---\n", 2)
    metadata = yaml.safe_load(metadata)
    tags = {"reinforcement-learning", "deep-reinforcement-learning", "doomgrad", "CartPole-v1"}
    assert set(metadata["tags"]) == tags
    (result,) = metadata["model-index"][0]["results"]
    assert result["task"]["type"] == "reinforcement-learning"
    assert result["dataset"]["type"] == "CartPole-v1"
    (metric,) = result["metrics"]
    assert metric["type"] == "mean_reward"
    assert metric["value"] == f"{scores['mean']:.2f} +/- {scores['std']:.2f}"
    assert list(scores["scores"]) == ["greedy", "random"]
    for name, s in scores["scores"].items():
        interval = f"{s['ci_low']:,.2f} to {s['ci_high']:,.2f}"
        assert f"| {name} | {s['mean']:,.2f} | {interval} |" in text
    assert config_sentence(config) in text
    assert record["git"] in text
    assert f", in {record['precision']};" in text
    assert "128 env steps and" in text
    for command in ("pull me/cartpole", "watch hub/me--cartpole", "score hub/me--cartpole"):
        assert f"\n    python evaluate.py {command}\n" in text


def config_sentence(config):
    return Protocol(episodes=2, num_envs=2).sentence(config)


def test_the_commands_of_a_card_trust_a_package_if_they_must(scored, best, config):
    pytest.importorskip("huggingface_hub", reason='pip install -e ".[hub]"')
    text = card(
        repository="me/x",
        folder="hub/me--x",
        config=config,
        about=best.about,
        record=RunFolder(scored).read_record(),
        evaluation=read_evaluation(scored / EVALUATION, best, config),
        trust=" --trust",
    )
    for command in ("pull me/x --trust", "watch hub/me--x --trust", "score hub/me--x --trust"):
        assert f"\n    python evaluate.py {command}\n" in text


def test_a_score_belongs_to_one_policy_and_one_task(scored, best, config):
    path = scored / EVALUATION
    evaluation = read_evaluation(path, best, config)
    assert evaluation.protocol == Protocol(episodes=2, num_envs=2)
    assert list(evaluation.scores) == ["greedy", "random"]
    older = replace(best, about=replace(best.about, env_steps=64))
    assert read_evaluation(path, older, config) is None
    assert read_evaluation(path, best, replace(config, frame_skip=2)) is None
    assert read_evaluation(path, best, replace(config, env="Acrobot-v1")) is None
    path.unlink()
    assert read_evaluation(path, best, config) is None


@pytest.mark.parametrize(
    "change", [{"protocol": 1}, {"scores": {"greedy": {"mean": "high"}}}, {"scores": 1}]
)
def test_a_file_that_score_did_not_write_is_refused(scored, best, config, change):
    path = scored / EVALUATION
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FileError, match=r"was not written by `evaluate\.py score`; remove it"):
        read_evaluation(path, best, config)


HARDWARE = {"cpu": "a CPU", "cores": 2, "gpu": None}


def test_the_origin_names_commit_machine_precision_and_length():
    about = About(env_steps=12_345, seconds=90.0)
    record = {"git": "97d1c4b", "hardware": HARDWARE, "precision": "bfloat16"}
    expected = (
        "at commit 97d1c4b, on a CPU, 2 cores, GPU: none, in bfloat16; the policy was saved after "
        "12,345 env steps and 1.5 minutes"
    )
    assert origin(record, about) == expected
    # Records of older runs lack the precision, and those outside a checkout the commit.
    older = {"git": None, "hardware": HARDWARE | {"gpu": "a GPU"}}
    assert origin(older, about).startswith("at commit unknown, on a CPU, 2 cores, GPU: a GPU; the")


@pytest.mark.parametrize("record", [{}, {"git": "97d1c4b"}, {"git": "x", "hardware": "fast"}])
def test_a_record_without_an_origin_is_refused(record):
    with pytest.raises(FileError, match="does not say with which commit and hardware"):
        origin(record, About())


@pytest.mark.parametrize("program", ["train.py", "/home/me/train.py", "/bin/doomgrad-train"])
def test_the_command_is_one_that_works_in_a_checkout(program):
    record = {"command": f"{program} basic --seed 3\n"}
    assert training_command(record) == "python train.py basic --seed 3"
