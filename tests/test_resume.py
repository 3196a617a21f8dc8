"""A training that was killed goes on as if nothing had happened, bit for bit."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import train
from agents import OUR_AGENTS
from agents.agent import Agent
from tests.envs import processes

ROOT = Path(__file__).parent.parent
# Normalisers, a schedule, an evaluation in the midst, episodes longer than a rollout.
CARTPOLE = ["CartPole-v1", "--num-envs", "4", "--rollout-length", "16", "--total-env-steps", "512"]
CARTPOLE += ["--normalize-obs", "--normalize-returns", "--anneal-learning-rate"]
CARTPOLE += ["--eval-episodes", "4", "--eval-every", "192", "--minibatch-size", "32"]
DOOM = ["--num-envs", "4", "--num-groups", "2", "--rollout-length", "16"]
DOOM += ["--total-env-steps", "384", "--frame-stack", "2", "--variables", "--eval-episodes", "2"]
DOOM += ["--eval-every", "256", "--minibatch-size", "32", "--normalize-obs"]
MEMORIES = ("none", "lstm", "gru")
# The time that passed is not the same, nor what depends on it.
TIMES = ("seconds",)


class Killed(BaseException):
    """What nothing catches, so that nothing is saved in response to it."""


def contents(folder: Path) -> dict[str, torch.Tensor | dict[str, object]]:
    """Give what a training's last checkpoint and its policies hold, but for times."""
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
    """Train with a checkpoint after each update, and die in the midst of the one after some."""
    with monkeypatch.context() as patch:
        update, count = Agent.update, itertools.count()

        def dying_update(self, rollout, **options):
            if next(count) == updates:
                raise Killed
            return update(self, rollout, **options)

        patch.setattr(Agent, "update", dying_update)
        with pytest.raises(Killed):
            train.main([*arguments, "--checkpoint-every-s", "0", "--run-dir", str(folder)])


# Each agent once; the rest of the square takes a minute.
@pytest.mark.parametrize(
    ("agent", "memory"),
    [
        pytest.param(agent, memory, marks=[] if memory == "lstm" else pytest.mark.slow)
        for agent in OUR_AGENTS
        for memory in MEMORIES
    ]
    + [
        ("sb3-ppo", "none"),
        pytest.param("sb3-a2c", "none", marks=pytest.mark.slow),
        pytest.param("sb3-recurrent-ppo", "lstm", marks=pytest.mark.slow),
    ],
)
def test_every_agent_goes_on_bit_for_bit(tmp_path, monkeypatch, capsys, agent, memory):
    arguments = [*CARTPOLE, "--agent", agent, "--memory", memory]
    if agent == "sb3-a2c":  # It knows no minibatches.
        arguments = [a for a in arguments if a not in ("--minibatch-size", "32")]
    run_to_the_end(tmp_path / "whole", *arguments)
    run_and_die(monkeypatch, 2, tmp_path / "parts", *arguments)
    run_and_die(monkeypatch, 3, tmp_path / "parts", *arguments)
    run_to_the_end(tmp_path / "parts", *arguments)
    assert_same(tmp_path / "parts", tmp_path / "whole")
    errors = capsys.readouterr().err
    assert "going on at 128 env steps" in errors
    assert "going on at 320 env steps" in errors
    assert "begin anew" not in errors


@pytest.mark.parametrize(
    ("scenario", "agent", "memory"),
    [
        # Its weapon swings, which the engine would keep from episode to episode.
        ("basic", "ppo", "none"),
        ("defend_the_center", "ppo", "lstm"),
        pytest.param("defend_the_center", "ppo", "none", marks=pytest.mark.slow),
        pytest.param("defend_the_center", "sb3-recurrent-ppo", "lstm", marks=pytest.mark.slow),
    ],
)
def test_doom_goes_on_bit_for_bit(tmp_path, monkeypatch, capsys, scenario, agent, memory):
    arguments = [scenario, *DOOM, "--agent", agent, "--memory", memory]
    run_to_the_end(tmp_path / "whole", *arguments)
    run_and_die(monkeypatch, 4, tmp_path / "parts", *arguments)
    run_to_the_end(tmp_path / "parts", *arguments)
    assert_same(tmp_path / "parts", tmp_path / "whole")
    assert "begin anew" not in capsys.readouterr().err


def test_games_that_do_not_repeat_themselves_begin_anew_and_this_is_said(
    tmp_path, monkeypatch, capsys
):
    arguments = ["tests.envs.toy:Moody-v0", "--num-envs", "4", "--rollout-length", "4"]
    arguments += ["--total-env-steps", "64", "--eval-episodes", "1"]
    run_and_die(monkeypatch, 1, tmp_path / "run", *arguments)
    run_to_the_end(tmp_path / "run", *arguments)
    assert "4 of 4 episodes begin anew" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path):
    for name, seed in (("one", "3"), ("same", "3"), ("other", "4")):
        run_to_the_end(tmp_path / name, *CARTPOLE, "--seed", seed)
    assert_same(tmp_path / "one", tmp_path / "same")
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    name = "policy.safetensors/critic.weight"
    assert not torch.equal(one[name], other[name])


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, monkeypatch, capsys):
    run_to_the_end(tmp_path / "whole", *CARTPOLE)
    run_and_die(monkeypatch, 3, tmp_path / "parts", *CARTPOLE)
    older, newest = sorted((tmp_path / "parts" / "checkpoint").iterdir())
    assert (older.name, newest.name) == ("000000000128.safetensors", "000000000192.safetensors")
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content)
    run_to_the_end(tmp_path / "parts", *CARTPOLE)
    errors = capsys.readouterr().err
    assert "its content is not what its checksum says; going back to the one before it" in errors
    assert "going on at 128 env steps" in errors
    assert_same(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_nothing_and_leave_nothing(tmp_path):
    arguments = [
        "defend_the_center",
        *DOOM[:-6],
        "--eval-episodes",
        "4",
        "--eval-every",
        "8192",
        "--seed",
        "5",
    ]
    arguments[arguments.index("384")] = "65536"
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
    # What killed processes left is gone since the last start.
    assert list(tmp_path.glob("doomgrad-engine-*")) == []
