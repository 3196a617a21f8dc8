"""Tests of `commands.compress`; tests of `deploy` test how variants are made and measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluate
import train
from commands import compress, suite
from commands.compress import CompressOptions
from deploy.students import num_parameters, student_config
from evaluation.entries import ZOO
from evaluation.report.compression import Variant, markdown, picture, rows
from evaluation.report.layout import rendered
from evaluation.statistics import Interval, summarize
from storage.files import decode
from tests.evaluation.policies import save_run
from tests.programs import refused, succeed


def test_students_see_and_act_as_their_teacher_does(tmp_path):
    """What is passed to `train.py` makes the environment and the network that are meant."""
    gru = Path(save_run(tmp_path / "gru", memory="gru"))
    for run, share in ((ZOO / "defend_the_center", 0.25), (gru, 0.5)):
        options = CompressOptions(run=run, out=tmp_path / f"out{share}", train_env_steps=640)
        teacher = compress._open(options)
        policy = teacher.file.policy
        network = student_config(policy, share)
        arguments = compress._arguments(teacher, tmp_path / "student", network, None)
        config = train.read_command_line(arguments).training
        assert config.perception == network
        assert config.teacher == teacher.path
        assert list(config.objective_configs) == ["distill"]
        assert (config.agent.loss_coef, config.total_env_steps) == (0.0, 640)
        assert config.agent.reward_scale * teacher.file.about.value_unit == pytest.approx(1.0)
        for name in ("env", "height", "width", "variables", "frame_skip", "skill", "frame_stack"):
            assert getattr(config.env, name) == getattr(teacher.config, name), name


def test_bad_arguments_get_one_line(capsys, tmp_path):
    run = save_run(tmp_path / "run", 1.0)
    out = tmp_path / "out"
    compress._open(CompressOptions(run=Path(save_run(tmp_path / "other", 0.0)), out=out))
    (tmp_path / "policy.onnx").touch()
    for arguments, expected in (
        (["nowhere"], "there is no run at nowhere"),
        ([run, "--device", "cuda"], "variants are compared on the CPU: leave out --device"),
        ([run, "--keep", "1"], "shares must be between 0 and 1, got 1"),
        ([run, "--students", "0.5", "2"], "shares must be between 0 and 1, got 2"),
        ([run, "--out", out], f"{out} holds variants of another policy; name another folder"),
        (
            [tmp_path / "other", "--out", out, "--keep", "0.25"],
            f"{out} holds variants that were made with --keep 0.5; use the same, or name another",
        ),
        ([tmp_path / "policy.onnx"], "an ONNX file, which can be played but not changed"),
    ):
        assert expected in refused(capsys, evaluate, "compress", *arguments)


def variant(network, runtime, latency, returns):
    return Variant(
        network=network,
        runtime=runtime,
        bytes=int(1e6 * latency / 1e3),
        parameters=10,
        multiply_adds=2000,
        latency_us={"1": (latency, 2 * latency), "32": (10 * latency, 20 * latency)},
        env_steps_per_s=50.0,
        returns=returns,
        score=summarize([np.array(returns, float)], 3.0),
        no_worse=Interval(estimate=0.5, low=0.4, high=0.6),
    )


def test_the_table_compares_with_the_teacher():
    teacher = variant("teacher", "PyTorch", 1000.0, [1.0, 2.0, 3.0])
    student = variant("student $x|y$", "int8", 125.0, [1.0, 1.0, 4.0])
    first, second = rows([teacher, student])
    assert first[1:5] == ("1,000 kB (1.0x)", "10", "2,000", "1,000 (2,000) us, 1.0x")
    assert second[1] == "125 kB (8.0x)"
    assert second[4:6] == ("125 (250) us, 8.0x", "1,250 (2,500) us, 8.0x")
    assert second[7].startswith("2.00 (")
    text = markdown([teacher, student], "a title", ["a sentence"])
    assert "student &#36;x&#124;y&#36; (int8)" in text
    assert rendered(picture([teacher, student], "a $title$"), "png").startswith(b"\x89PNG")
    assert decode(Variant, json.loads(json.dumps(vars(teacher), default=vars))) is not None


@pytest.mark.slow
def test_everything_is_made_and_resumed(tmp_path, monkeypatch, capsys):
    run = Path(save_run(tmp_path / "run", 1.0, agent="ppo", gamma=0.9))
    out, trained = tmp_path / "out", []

    def train_here(arguments):
        trained.append(arguments)
        short = ["--num-envs", "2", "--num-workers", "1", "--rollout-length", "16"]
        with torch.enable_grad():  # As in a separate process; the commands need no gradients.
            return train.main([*arguments, *short, "--eval-episodes", "1"])

    monkeypatch.setattr(suite, "train_alone", train_here)
    arguments = ["--episodes", "3", "--num-envs", "2", "--train-env-steps", "64", "--out", out]
    arguments += ["--students", "0.5", "0.25"]
    succeed(evaluate, "compress", run, *arguments)
    result = json.loads((out / "compress.json").read_text())
    names = [f"{each['network']} ({each['runtime']})" for each in result["variants"]]
    assert names[:3] == ["teacher (PyTorch)", "teacher (ONNX)", "teacher (int8)"]
    assert names[3:] == [
        "pruned (ONNX)",
        "pruned (int8)",
        "student 0.5 (ONNX)",
        "student 0.25 (ONNX)",
        "student 0.25 (int8)",
    ]
    assert len(trained) == 3
    whole, *others = (each["parameters"] for each in result["variants"])
    assert others[-1] <= whole / 4
    assert whole == num_parameters(compress._open(CompressOptions(run=run, out=out)).file.policy)
    # Killed before its figures were written, and before a training was complete.
    (out / "student-0.25-int8.onnx.json").unlink()
    (out / "student-0.25-int8.onnx").unlink()
    shutil.rmtree(out / "student-0.5")
    before = (out / "teacher.onnx").stat().st_mtime_ns
    succeed(evaluate, "compress", run, *arguments)
    again = json.loads((out / "compress.json").read_text())
    assert len(trained) == 4
    assert (out / "teacher.onnx").stat().st_mtime_ns == before
    for one, other in zip(result["variants"], again["variants"], strict=True):
        name = one["network"], one["runtime"]
        assert one["returns"] == other["returns"], name
        assert one == other or name == ("student 0.25", "int8")
    assert "not pruned" not in capsys.readouterr().out
