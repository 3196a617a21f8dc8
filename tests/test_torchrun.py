"""Trainings of two processes, as torchrun starts them.

The processes are started once, and train several times, because importing PyTorch takes seconds.
tests/agents/test_distributed.py tests the arithmetic, with ranks that are threads.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import train
from agents import SB3_AGENTS
from tests.envs import processes
from tests.programs import logged, refused, status_of
from tests.test_resume import assert_same

ROOT = Path(__file__).parent.parent
COMMON = [
    "CartPole-v1",
    "--num-workers",
    "1",
    "--rollout-length",
    "8",
    "--total-env-steps",
    "128",
    "--eval-episodes",
    "1",
    "--no-record",  # Without drawing an episode, which takes seconds.
    "--normalize-obs",
    "--normalize-returns",
    "--minibatch-size",
    "None",
]
OF_ONE, OF_TWO = ["--num-envs", "4"], ["--num-envs", "2"]
INTERRUPTED = 128 + signal.SIGTERM

# Each training has a port of its own. In the second one, rank 1 alone is told to stop in its second
# update, and in the last one its environments fail.
SCRIPT = """
import json, os, signal, sys
import train
from agents.agent import Agent
from commands.commandline import run
from envs import EnvError

ports, arguments, rank = json.loads(sys.argv[1]), sys.argv[2:], int(os.environ["RANK"])
update, statuses = Agent.update, []

def main(folder, in_second_update=lambda: None):
    def counted(self, rollout, **options):
        if self.num_updates == 1 and rank == 1:
            in_second_update()
        return update(self, rollout, **options)

    Agent.update = counted
    os.environ["MASTER_PORT"] = str(ports.pop())
    sys.argv = ["train.py", *arguments, "--run-dir", folder]
    statuses.append(run(train.main))

def fail():
    raise EnvError("an engine broke")

main("whole")
main("parts", lambda: os.kill(os.getpid(), signal.SIGTERM))
main("parts")
main("failing", fail)
print(json.dumps(statuses))
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Two ranks that have trained: the folder, and exit statuses and what was printed, by rank."""
    folder = tmp_path_factory.mktemp("ranks")
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, json.dumps(free_ports(4)), *COMMON, *OF_TWO]
    running = [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=200) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    return folder, [json.loads(out.splitlines()[-1]) for out, _ in said], said


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    with safe_open(max(run.glob("checkpoint/*.safetensors")), "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_two_ranks_with_half_the_environments_learn_what_one_process_learns(ranks, tmp_path):
    folder, _, _ = ranks
    assert status_of(train, *COMMON, *OF_ONE, "--run-dir", tmp_path / "one") == 0
    one, two = tensors_of(tmp_path / "one"), tensors_of(folder / "whole")
    for name in one:
        if name.startswith(("policy/", "optimizer/")) or name == "reward_scaler/variance":
            torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6, msg=name)
    for rank in (1, 0):
        key = f"sampler/rank{rank}/" if rank else ""
        part = two[f"{key}sampler/episode_seeds"]
        assert part.tolist() == one["sampler/episode_seeds"].chunk(2)[rank].tolist()
    for tag in ("rollout/ep_rew_mean", "eval/mean_reward", "time/episodes", "time/total_timesteps"):
        assert logged(folder / "whole", tag) == logged(tmp_path / "one", tag), tag


def test_one_rank_that_is_told_to_stop_stops_all_and_they_resume_bit_for_bit(ranks):
    folder, statuses, said = ranks
    for status in statuses:
        assert status[:3] == [0, INTERRUPTED, 0]
    assert "interrupted at 64 env steps" in said[0][0]
    assert "resuming at 64 env steps" in said[0][1]
    assert_same(folder / "parts", folder / "whole")


def test_a_rank_that_fails_ends_all_and_each_says_why(ranks):
    folder, statuses, said = ranks
    assert [status[3] for status in statuses] == [2, 2]
    assert "error: another rank of this training has ended" in said[0][1]
    words = "error: an engine broke; this is rank 1, and all ranks resume from the last checkpoint"
    assert words in said[1][1]
    assert list((folder / "failing").glob("checkpoint/*")) == []


def test_rank_0_alone_shows_and_writes_something(ranks):
    folder, _, said = ranks
    assert sorted(path.name for path in folder.iterdir()) == ["failing", "parts", "whole"]
    assert "evaluation" in said[0][1]
    assert said[1][0].count("\n") == 1  # The statuses, which the script prints.
    assert "evaluation" not in said[1][1]


def test_another_number_of_ranks_is_refused(ranks, capsys):
    folder, _, _ = ranks
    line = refused(capsys, train, *COMMON, *OF_TWO, "--run-dir", folder / "whole")
    assert "holds a run with num_ranks 2, not 1; choose another --run-dir" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *((["--agent", name], "learns with Stable-Baselines3's code") for name in SB3_AGENTS),
        (["--autotune"], "run it without torchrun"),
        (["--tune"], "leave out torchrun"),
    ],
)
def test_what_one_process_does_is_refused_under_torchrun(monkeypatch, capsys, arguments, words):
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    assert words in refused(capsys, train, "CartPole-v1", *arguments)


def test_averages_of_weights_need_several_processes(capsys):
    line = refused(capsys, train, "CartPole-v1", "--sync-every", "4")
    assert "start them with torchrun" in line


# With torchrun itself.

DOOM = [
    "basic",
    "--num-envs",
    "2",
    "--num-workers",
    "1",
    "--rollout-length",
    "16",
    "--total-env-steps",
    "1024",
    "--minibatch-size",
    "16",
    "--normalize-obs",
    "--eval-envs",
    "none",
    "--checkpoint-every-s",
    "0",
]
STOPS_WITHIN_S = 20.0  # On a machine that is busy; torchrun itself kills after 30 s.


def start_torchrun(folder: Path, mark: str, *arguments: str, restarts: int = 0):
    """Start a training with two ranks under torchrun; return it, and the ids of its ranks."""
    environment = {**os.environ, processes.MARKER: mark, "TMPDIR": str(folder)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, f"--max-restarts={restarts}", str(ROOT / "train.py"), *DOOM, *arguments]
    with (folder / "said").open("w") as said:
        return subprocess.Popen(
            [*command, "--run-dir", "run"], cwd=folder, env=environment, stdout=said, stderr=said
        )


def ranks_of(mark: str) -> list[int]:
    found = processes.command_lines(mark)
    return sorted(p for p, c in found.items() if "train.py" in c and "distributed.run" not in c)


def expect_nothing_left(folder: Path, mark: str, engines: dict[int, str]) -> None:
    assert processes.wait_until(lambda: not processes.command_lines(mark), 10.0)
    assert processes.shared_memory(engines.values()) == []


def has_checkpoint(folder: Path) -> bool:
    return any((folder / "run").glob("checkpoint/*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("sync_every", [(), ("--sync-every", "3")], ids=["gradients", "weights"])
def test_a_rank_that_is_killed_ends_all_and_torchrun_restarts_them(tmp_path, sync_every):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    assert start_torchrun(whole, f"{whole}", *sync_every).wait(300) == 0
    # Ranks that are started anew resume, although they were told to start over.
    torchrun = start_torchrun(parts, f"{parts}", "--fresh", *sync_every, restarts=1)
    assert processes.wait_until(lambda: has_checkpoint(parts), 120.0)
    engines = {p: c for p, c in processes.command_lines(f"{parts}").items() if "viz" in c}
    first = ranks_of(f"{parts}")
    assert len(first) == 2
    os.kill(first[1], signal.SIGKILL)
    ended = time.monotonic()
    assert processes.wait_until(lambda: not any(map(processes.is_running, first)), STOPS_WITHIN_S)
    print(f"all ranks had ended {time.monotonic() - ended:.1f} s after one was killed")
    assert torchrun.wait(300) == 0, (parts / "said").read_text()
    expect_nothing_left(parts, f"{parts}", engines)
    said = (parts / "said").read_text()
    assert "resuming at" in said
    theirs = tensors_of(whole / "run")
    for name, tensor in tensors_of(parts / "run").items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_ends_torchrun_ends_its_ranks_and_they_resume(tmp_path, number):
    torchrun = start_torchrun(tmp_path, f"{tmp_path}")
    assert processes.wait_until(lambda: has_checkpoint(tmp_path), 120.0)
    engines = {p: c for p, c in processes.command_lines(f"{tmp_path}").items() if "viz" in c}
    running = ranks_of(f"{tmp_path}")
    torchrun.send_signal(number)
    assert processes.wait_until(lambda: not any(map(processes.is_running, running)), STOPS_WITHIN_S)
    torchrun.wait(60)
    expect_nothing_left(tmp_path, f"{tmp_path}", engines)
    assert "interrupted at" in (tmp_path / "said").read_text()
    assert start_torchrun(tmp_path, f"{tmp_path}").wait(300) == 0
    assert "resuming at" in (tmp_path / "said").read_text()
