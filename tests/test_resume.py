"""A training that was killed is resumed as if it had never been killed, bit for bit."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import train
from agents import OBJECTIVES, OUR_AGENTS
from agents.agent import Agent
from perception import MEMORIES
from storage.policy_file import load_policy
from tests.envs import processes
from tests.evaluation.policies import save_run
from tests.programs import logged

ROOT = Path(__file__).parent.parent
# Normalisers, a schedule, an evaluation in the middle, episodes longer than a rollout.
CARTPOLE = [
    "CartPole-v1",
    "--num-envs",
    "4",
    "--num-workers",
    "1",
    "--rollout-length",
    "16",
    "--total-env-steps",
    "256",
    "--normalize-obs",
    "--normalize-returns",
    "--anneal-learning-rate",
    "--eval-episodes",
    "2",
    "--eval-every",
    "192",
    "--num-epochs",
    "2",
    "--minibatch-size",
    "32",
    "--no-record",
]
DOOM = [
    "--num-envs",
    "4",
    "--num-groups",
    "2",
    "--rollout-length",
    "16",
    "--total-env-steps",
    "192",
    "--frame-stack",
    "2",
    "--variables",
    "--eval-episodes",
    "1",
    "--eval-every",
    "192",
    "--num-epochs",
    "2",
    "--minibatch-size",
    "32",
    "--normalize-obs",
    "--no-record",
]
# All but distill, which needs a teacher.
WITHOUT_TEACHER = [name for name in OBJECTIVES if name != "distill"]
ALL_OBJECTIVES = ["--objectives", *WITHOUT_TEACHER]
# The time that passed is not the same, nor is what depends on it.
TIMES = ("seconds", "other_seconds")


class Killed(BaseException):
    """Nothing catches it, so that nothing is saved in response to it."""


def contents(folder: Path) -> dict[str, torch.Tensor | dict[str, object]]:
    """Return what a training's last checkpoint and its policies hold, except times."""
    found = {}
    newest = max((folder / "checkpoint").glob("*.safetensors"))
    for file in (newest, folder / "policy.safetensors", folder / "best.safetensors"):
        with safe_open(file, "pt") as content:
            about = json.loads(content.metadata()["doomgrad"])
            for part in (about.get("state", {}), about.get("about", {})):
                for name in TIMES:
                    part.pop(name, None)
            found[file.name] = about
            for name in content.keys():  # noqa: SIM118
                found[f"{file.name}/{name}"] = content.get_tensor(name)
    return found


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = contents(one), contents(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, theirs[name]), name
        else:
            assert value == theirs[name], name


def run_to_the_end(folder: Path, *arguments: str) -> None:
    assert train.main([*arguments, "--run-dir", str(folder)]) == 0


def run_and_die(monkeypatch, updates: int, folder: Path, *arguments: str) -> None:
    """Train with a checkpoint after each update, and die in the update after some."""
    with monkeypatch.context() as patch:
        update, count = Agent.update, itertools.count()

        def dying_update(self, rollout, **options):
            if next(count) == updates:
                raise Killed
            return update(self, rollout, **options)

        patch.setattr(Agent, "update", dying_update)
        with pytest.raises(Killed):
            train.main([*arguments, "--checkpoint-every-s", "0", "--run-dir", str(folder)])


# Each of our agents and each memory once, and one of Stable-Baselines3's agents.
PAIRS = [
    *zip(OUR_AGENTS, itertools.cycle(MEMORIES), strict=False),
    ("sb3-ppo", "none"),
]
SLOW_PAIRS = [
    *(pair for pair in itertools.product(OUR_AGENTS, MEMORIES) if pair not in PAIRS),
    ("sb3-a2c", "none"),
    ("sb3-recurrent-ppo", "lstm"),
]


@pytest.mark.parametrize(
    ("agent", "memory"),
    [*PAIRS, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW_PAIRS)],
)
def test_every_agent_resumes_bit_for_bit(tmp_path, monkeypatch, capsys, agent, memory):
    arguments = [*CARTPOLE, "--agent", agent, "--memory", memory]
    if agent == "sb3-a2c":  # It has no minibatches.
        arguments = [a for a in arguments if a not in ("--minibatch-size", "32")]
        arguments += ["--num-epochs", "1"]
    run_to_the_end(tmp_path / "whole", *arguments)
    run_and_die(monkeypatch, 2, tmp_path / "parts", *arguments)
    run_to_the_end(tmp_path / "parts", *arguments)
    assert_same(tmp_path / "parts", tmp_path / "whole")
    errors = capsys.readouterr().err
    assert "resuming at 128 env steps" in errors
    assert "could not be restored" not in errors


@pytest.mark.slow
def test_a_training_that_is_killed_twice_resumes_bit_for_bit(tmp_path, monkeypatch, capsys):
    run_to_the_end(tmp_path / "whole", *CARTPOLE)
    run_and_die(monkeypatch, 1, tmp_path / "parts", *CARTPOLE)
    run_and_die(monkeypatch, 2, tmp_path / "parts", *CARTPOLE)
    # The newest checkpoint is damaged, so that the one before it is resumed.
    older, newest = sorted((tmp_path / "parts" / "checkpoint").iterdir())
    assert (older.name, newest.name) == ("000000000128.safetensors", "000000000192.safetensors")
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content)
    run_to_the_end(tmp_path / "parts", *CARTPOLE)
    errors = capsys.readouterr().err
    words = "its content is not what its checksum says; resuming from the checkpoint before it"
    assert words in errors
    for env_steps in (64, 128):
        assert f"resuming at {env_steps} env steps" in errors
    assert_same(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.slow
def test_learning_from_a_teacher_resumes_bit_for_bit_without_its_file(tmp_path, monkeypatch):
    teacher = save_run(tmp_path / "teacher", 1.0, memory="gru")
    options = ["--objectives", "distill", "--teacher", teacher]
    options += ["--loss-coef", "0", "--distill.value-coef", "0"]
    run_to_the_end(tmp_path / "whole", *CARTPOLE, *options)
    run_and_die(monkeypatch, 2, tmp_path / "parts", *CARTPOLE, *options)
    shutil.rmtree(teacher)
    run_to_the_end(tmp_path / "parts", *CARTPOLE, *options)
    assert_same(tmp_path / "parts", tmp_path / "whole")
    divergences = logged(tmp_path / "whole", "objectives/distill/kl")
    assert all(value is not None for value in divergences[1:])


@pytest.mark.parametrize(
    ("scenario", "options"),
    [
        # Its weapon swings, which the engine would keep from episode to episode.
        ("basic", ["--memory", "lstm", *ALL_OBJECTIVES]),
        *(
            pytest.param(scenario, options, marks=pytest.mark.slow)
            for scenario, options in (
                ("basic", []),
                ("defend_the_center", ["--memory", "lstm"]),
                ("defend_the_center", ["--agent", "sb3-recurrent-ppo", "--memory", "lstm"]),
                ("defend_the_center", ["--agent", "vtrace", *ALL_OBJECTIVES]),
            )
        ),
    ],
    ids=str,
)
def test_doom_resumes_bit_for_bit(tmp_path, monkeypatch, capsys, scenario, options):
    arguments = [scenario, *DOOM, *options]
    run_to_the_end(tmp_path / "whole", *arguments)
    run_and_die(monkeypatch, 2, tmp_path / "parts", *arguments)
    run_to_the_end(tmp_path / "parts", *arguments)
    assert_same(tmp_path / "parts", tmp_path / "whole")
    assert "could not be restored" not in capsys.readouterr().err
    if "--objectives" in options:
        assert_has_objectives(tmp_path / "whole")


def assert_has_objectives(run: Path) -> None:
    """Check what objectives log, and that they are in checkpoints alone."""
    metrics = ("variables/HEALTH", "variables/ENEMY_IN_VIEW", "contrastive/accuracy", "rnd/reward")
    for name in (*metrics, *(f"{objective}/loss" for objective in WITHOUT_TEACHER)):
        values = logged(run, f"objectives/{name}")
        assert all(value is not None for value in values[1:]), name
    assert json.loads((run / "config.json").read_text())["config"]["env"]["enemy_in_view"]
    heads = {name.partition("/objectives/")[2] for name in contents(run)} - {""}
    without_heads = {"adversarial", "noise", "shift"}
    assert {name.partition("/")[0] for name in heads} == set(WITHOUT_TEACHER) - without_heads
    files = ("policy.safetensors", "best.safetensors")
    assert not [name for name in contents(run) if name.startswith(files) and "objectives" in name]
    assert load_policy(run / "policy.safetensors").about.env_steps == 192


def test_episodes_that_are_not_deterministic_start_anew_and_this_is_reported(
    tmp_path, monkeypatch, capsys
):
    arguments = ["tests.envs.toy:Moody-v0", "--num-envs", "4", "--rollout-length", "4"]
    arguments += ["--total-env-steps", "64", "--eval-episodes", "1"]
    run_and_die(monkeypatch, 1, tmp_path / "run", *arguments)
    run_to_the_end(tmp_path / "run", *arguments)
    words = "4 episodes in progress could not be restored (the environment is not deterministic)"
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path):
    arguments = list(CARTPOLE)
    arguments[arguments.index("256")] = "128"
    for name, seed in (("one", "3"), ("same", "3"), ("other", "4")):
        run_to_the_end(tmp_path / name, *arguments, "--seed", seed)
    assert_same(tmp_path / "one", tmp_path / "same")
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    name = "policy.safetensors/critic.weight"
    assert not torch.equal(one[name], other[name])


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_nothing_and_leave_nothing(tmp_path):
    arguments = [
        "defend_the_center",
        "--num-envs",
        "4",
        "--num-groups",
        "2",
        "--rollout-length",
        "16",
        "--total-env-steps",
        "65536",
        "--frame-stack",
        "2",
        "--variables",
        "--eval-episodes",
        "4",
        "--eval-every",
        "8192",
        "--seed",
        "5",
    ]
    run_to_the_end(tmp_path / "whole", *arguments)
    command = [sys.executable, str(ROOT / "train.py"), *arguments, "--run-dir", "parts"]
    command += ["--checkpoint-every-s", "0"]
    chance, before = random.Random(0), 0
    for _ in range(20):
        mark = f"{tmp_path}-{before}"
        environment = {**os.environ, processes.MARKER: mark, "TMPDIR": str(tmp_path)}
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(2.0, 9.0))
        running = processes.command_lines(mark)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert processes.wait_until(lambda: not any(map(processes.is_running, running)), 2.0)  # noqa: B023
        assert processes.shared_memory(running.values()) == []
        saved = [int(p.stem) for p in (tmp_path / "parts").glob("checkpoint/0*.safetensors")]
        assert max(saved, default=0) >= before
        before = max(saved, default=0)
    assert before > 0
    run_to_the_end(tmp_path / "parts", *arguments)
    assert_same(tmp_path / "parts", tmp_path / "whole")
    # What killed processes left is removed at the next start.
    assert list(tmp_path.glob("doomgrad-engine-*")) == []
