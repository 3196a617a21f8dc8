"""What a training survives: environments that fail, a full disk, numbers that are not finite."""

import contextlib
import csv
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import train
from agents.agent import Agent
from commands.commandline import as_flag
from envs import EnvConfig, SharedVectorEnv
from evaluation.playing import play_episodes, score_episodes
from evaluation.seeds import EVALUATION, SCORING, TRAINING
from storage.policy_file import load_policy
from tests.envs import processes
from tests.programs import logged, status_of
from training import assemble
from training.presets import preset

ROOT = Path(__file__).parent.parent
TRAIN = [sys.executable, str(ROOT / "train.py")]
SHORT = ["--num-envs", "4", "--rollout-length", "16", "--eval-episodes", "2", "--no-record"]


def rows(folder):
    with (folder / "progress.csv").open() as file:
        return list(csv.DictReader(file))


def start(tmp_path, *arguments):
    mark = {**os.environ, processes.MARKER: str(tmp_path)}
    return subprocess.Popen(
        [*TRAIN, *arguments, "--run-dir", "run"],
        cwd=tmp_path,
        env=mark,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Environments.


@pytest.mark.parametrize(
    "seeds",
    [
        [EVALUATION],
        # The first seeds are those of environments whose speed is measured.
        [SCORING, EVALUATION, EVALUATION + 1, TRAINING + 3, TRAINING + 60],
    ],
)
def test_restarts_are_counted_and_the_first_one_is_reported(tmp_path, capfd, monkeypatch, seeds):
    monkeypatch.setenv("DOOMGRAD_STUMBLE", str(tmp_path))
    monkeypatch.setattr(assemble, "_LIMIT_STEPS", 50)  # Enough for a measured one to fail.
    for seed in seeds:
        (tmp_path / str(seed)).touch()
    arguments = ["tests.envs.toy:Stumbling-v0", *SHORT, "--total-env-steps", "640"]
    assert train.main([*arguments, "--eval-every", "64", "--run-dir", str(tmp_path / "run")]) == 0
    late = TRAINING + 60 in seeds
    counts = logged(tmp_path / "run", "time/restarts")
    assert (counts[0], counts[-1]) == (len(seeds) - late, len(seeds))
    said = " ".join(capfd.readouterr().err.split())
    reported = r"(\w+): the toy stumbled \(toy.py:\d+\); the environment is restarted, further"
    assert re.findall(reported, said) == ["ZeroDivisionError"]
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_games_that_break_again_and_again_stop_the_training_saved(tmp_path, monkeypatch):
    sour = tmp_path / "sour"
    monkeypatch.setenv("DOOMGRAD_SOUR", str(sour))
    arguments = ["tests.envs.toy:Souring-v0", *SHORT, "--total-env-steps", "100000000"]
    # The worker has commands of the other group that it does not read any more.
    arguments += ["--num-groups", "2", "--num-workers", "1"]
    process = start(tmp_path, *arguments)
    assert processes.wait_until((tmp_path / "run" / "progress.csv").exists, 60.0)
    sour.touch()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    said = errors.splitlines()[-1]
    assert re.search(
        r"the episode with seed \d+ failed 20 times: AssertionError: it has turn", said
    )
    saved = load_policy(tmp_path / "run" / "policy.safetensors").about.env_steps
    assert saved > 0
    assert f"what was learned in {saved:,} env steps is saved" in said


@pytest.mark.slow
def test_cartpole_is_learned_in_chaos(tmp_path):
    fields = preset("CartPole-v1", "ppo")
    flags = [word for name in fields for word in as_flag(name.split(".")[-1], fields[name])]
    arguments = ["tests.envs.toy:Chaos-v0", *flags, "--hang-after-s", "1"]
    arguments += ["--run-dir", str(tmp_path), "--max-restarts", "1000"]
    assert train.main(arguments) == 0
    restarts = float(rows(tmp_path)[-1]["time/restarts"])
    policy = load_policy(tmp_path / "best.safetensors").policy
    with contextlib.closing(SharedVectorEnv(EnvConfig(env="CartPole-v1"), 16)) as envs:
        played = play_episodes(policy, envs, num_episodes=100, seed=0, greedy=False)
        score = score_episodes(list(played))
    print(f"{restarts:.0f} restarts, score {score.mean}")
    assert restarts >= 20
    assert score.mean >= 450


@pytest.mark.slow
def test_basic_is_learned_while_engines_are_killed(tmp_path):
    process = start(tmp_path, "basic", "--hang-after-s", "2")
    chance, killed = random.Random(0), 0
    while process.poll() is None:
        time.sleep(chance.expovariate(0.5))
        lines = processes.command_lines(str(tmp_path))
        engines = [pid for pid, line in lines.items() if processes.is_engine(line)]
        if engines:
            how = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
            os.kill(chance.choice(engines), how)
            killed += 1
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    last = rows(tmp_path / "run")[-1]
    print(f"killed {killed}, restarts {last['time/restarts']}, {output}")
    assert float(last["time/restarts"]) >= 0.8 * killed > 10
    assert float(last["rollout/ep_rew_mean"]) >= 75
    assert not processes.command_lines(str(tmp_path))


# The disk.


@pytest.mark.slow
def test_a_full_disk_stops_nothing_but_the_write(tmp_path):
    arguments = ["CartPole-v1", *SHORT, "--total-env-steps", "100000000", "--eval-every", "640"]
    process = start(tmp_path, *arguments, "--checkpoint-every-s", "0.2")
    folder, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoint"
    try:
        assert processes.wait_until(lambda: len(list(checkpoints.glob("*"))) == 2, 60.0)
        # No file may grow beyond this, as if the disk were full.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        time.sleep(0.5)
        stuck = {file: file.read_bytes() for file in checkpoints.glob("0*")}
        time.sleep(1.0)
        assert {file: file.read_bytes() for file in checkpoints.glob("0*")} == stuck
        assert process.poll() is None
        newest = max(stuck)
        with safe_open(newest, "pt") as content:
            assert "policy/critic.weight" in content.keys()  # noqa: SIM118
        infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, infinite)
        assert processes.wait_until(lambda: max(checkpoints.glob("0*")) > newest, 20.0)
        # Logs are written again too, one update later where the last write had failed.
        logged = lambda: int(rows(folder)[-1]["time/total_timesteps"])  # noqa: E731
        assert processes.wait_until(lambda: logged() > int(newest.stem), 20.0)
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "cannot be written (File too large); continuing, to try again later" in errors
    assert "Traceback" not in errors
    assert not list(checkpoints.glob(".*"))
    steps = load_policy(folder / "policy.safetensors").about.env_steps
    assert steps > int(newest.stem)
    assert int(rows(folder)[-1]["time/total_timesteps"]) == steps


@pytest.mark.slow
def test_a_second_training_does_not_write_into_the_same_folder(tmp_path):
    arguments = ["CartPole-v1", *SHORT, "--total-env-steps", "100000000"]
    first = start(tmp_path, *arguments)
    try:
        assert processes.wait_until((tmp_path / "run" / "progress.csv").exists, 60.0)
        second = start(tmp_path, *arguments)
        _, errors = second.communicate(timeout=60)
        assert second.returncode == 2
        assert errors == "error: another training writes into run; choose another --run-dir\n"
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    # The lock ends with the process.
    third = start(tmp_path, *arguments[:-1], "64")
    _, errors = third.communicate(timeout=60)
    assert third.returncode == 0, errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has none")
@pytest.mark.slow
def test_a_training_needs_no_standard_streams(tmp_path):
    arguments = ["CartPole-v1", *SHORT, "--total-env-steps", "128", "--run-dir", str(tmp_path)]
    arguments += ["--num-workers", "1", "--eval-envs", "none"]
    # Standard input is closed, the other end of standard output too, and standard error is full.
    reading, writing = os.pipe()
    os.close(reading)
    command = ["sh", "-c", 'exec "$@" <&- 2>/dev/full', "sh", *TRAIN, *arguments]
    done = subprocess.run(command, stdout=writing, check=False, timeout=120)
    os.close(writing)
    assert done.returncode == 0
    assert load_policy(tmp_path / "policy.safetensors").about.env_steps == 128


# Numbers.


def poison(monkeypatch, wanted):
    """Put NaN into the rewards of the updates whose index is wanted."""
    update, count = Agent.update, iter(range(10**9))

    def poisoned(self, rollout, **options):
        if wanted(next(count)):
            rollout.rewards[1, 2] = torch.nan
        return update(self, rollout, **options)

    monkeypatch.setattr(Agent, "update", poisoned)


def test_an_update_that_is_not_finite_is_skipped_and_reported_once(tmp_path, capfd, monkeypatch):
    poison(monkeypatch, lambda index: index in (2, 3, 5))
    arguments = ["CartPole-v1", *SHORT, "--total-env-steps", "512", "--eval-every", "512"]
    assert train.main([*arguments, "--run-dir", str(tmp_path)]) == 0
    assert logged(tmp_path, "train/skipped_updates") == [0, 0, 1, 2, 2, 3, 3, 3]
    errors = capfd.readouterr().err
    assert errors.count("rewards of the rollout are not finite: this update is skipped") == 1


def test_updates_that_are_never_finite_stop_the_training_with_a_diagnosis(
    tmp_path, capsys, monkeypatch
):
    poison(monkeypatch, lambda index: index >= 2)
    arguments = ["CartPole-v1", *SHORT, "--total-env-steps", "6400", "--run-dir", str(tmp_path)]
    assert status_of(train, *arguments) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "rewards of the rollout are not finite, in 5 updates in a row" in said
    assert str(tmp_path / "not-finite.safetensors") in said
    with safe_open(tmp_path / "not-finite.safetensors", "pt") as content:
        assert content.get_tensor("rewards").isnan().nonzero().tolist() == [[1, 2]]
        assert content.get_tensor("obs/obs").shape == (16, 4, 4)
    policy = load_policy(tmp_path / "policy.safetensors").policy
    assert all(weight.isfinite().all() for weight in policy.state_dict().values())
