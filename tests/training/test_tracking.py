"""Tests of `training.tracking` with the real services: they read back what these wrote."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train
from commands.commandline import run

ROOT = Path(__file__).parents[2]
INSTALLED = {
    name: pytest.mark.skipif(
        importlib.util.find_spec(name) is None,
        reason=f'{name} is not installed: pip install -e ".[{name}]"',
    )
    for name in ("wandb", "trackio")
}
# What differs between the services is tested for both; the second one is among the slow tests where
# it repeats the first.
WANDB = pytest.param("wandb", marks=INSTALLED["wandb"])
TRACKIO = pytest.param("trackio", marks=INSTALLED["trackio"])
SLOW_WANDB = pytest.param("wandb", marks=[INSTALLED["wandb"], pytest.mark.slow])
SLOW_TRACKIO = pytest.param("trackio", marks=[INSTALLED["trackio"], pytest.mark.slow])
UPDATE = 64  # Env steps.
TRAIN = ["CartPole-v1", "--num-envs", "4", "--num-workers", "1", "--rollout-length", "16"]
TRAIN += ["--memory", "gru", "--eval-episodes", "1", "--eval-every", "128", "--seed", "3"]
TRAIN_IN_TWO_PARTS = """
import shutil, sys, time, train
run_dir, total, *arguments = sys.argv[1:]
for part in (1, 2):
    time.sleep(1.001 - time.time() % 1.0)  # wandb names folders by the second.
    steps = str(part * int(total) // 2)
    assert train.main([*arguments, "--run-dir", run_dir, "--total-env-steps", steps]) == 0
    shutil.copy(f"{run_dir}/policy.safetensors", f"{run_dir}/../part{part}.safetensors")
"""


@dataclass
class Tracked:
    """A part of a run as a service stored it."""

    run_id: str
    name: str
    group: str
    config: dict
    rows: list[tuple[int, dict]]


def read_wandb(folder: Path) -> list[Tracked]:
    from wandb.proto.wandb_internal_pb2 import Record

    parts = []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        rows, config, about = [], {}, None
        for content in records(path.read_bytes()):
            record = Record.FromString(content)
            if record.HasField("run"):
                about = record.run
                config |= {u.key: json.loads(u.value_json) for u in about.config.update}
            elif record.HasField("history"):
                items = record.history.item
                row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
                rows.append((int(row.pop("_step")), row))
        assert about is not None
        parts.append(Tracked(about.run_id, about.display_name, about.run_group, config, rows))
    return parts


def records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format: blocks of 32 KiB with pieces of them."""
    assert content.startswith(b":W&B")
    position, pieces = 7, b""
    while position < len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        pieces += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # A whole record, or the last piece of one.
            yield pieces
            pieces = b""


def read_trackio(folder: Path) -> list[Tracked]:
    database = sqlite3.connect(folder / "trackio" / "doomgrad.db")
    parts = []
    for run_id, name, config in database.execute("SELECT run_id, run_name, config FROM configs"):
        metrics = database.execute(
            "SELECT step, metrics FROM metrics WHERE run_id = ? ORDER BY id", (run_id,)
        )
        rows = [(step, json.loads(row)) for step, row in metrics]
        about = json.loads(config)
        parts.append(Tracked(run_id, name, about["_Group"], about, rows))
    database.close()
    return parts


READ = {"wandb": read_wandb, "trackio": read_trackio}


def python(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with `home` as the home folder and without settings of the services."""
    settings = ("WANDB", "TRACKIO", "HF_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(settings)}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def use_tracker(home: Path, service: str, code: str) -> list[str]:
    """Run code that calls `track` for the run folder `home`/basic/ppo-seed0; return its stderr."""
    before = (
        "import os, subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from training.tracking import Tracker\n"
        f"folder = Path({str(home)!r}) / 'basic' / 'ppo-seed0'\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "def track(resumed=False):\n"
        "    say = lambda line: print(line, file=sys.stderr)\n"
        f"    return Tracker({service!r}, folder, {{'gamma': 0.9}}, resumed=resumed, say=say)\n"
    )
    done = python(home, "-c", before + code)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.fixture(scope="module", params=[SLOW_WANDB, SLOW_TRACKIO])
def tracked(request, tmp_path_factory):
    """Train in two parts, tracked; keep the policy after the first part, and an untracked one."""
    home, runs = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("runs")
    folder, untracked = runs / "a" / "ppo-seed3", runs / "untracked"
    options = [str(folder), str(2 * UPDATE), *TRAIN, "--track", request.param]
    done = python(home, "-c", TRAIN_IN_TWO_PARTS, *options)
    assert done.stderr.count("tracked: ") == 2
    assert request.param not in done.stdout
    options = ["--run-dir", str(untracked), "--total-env-steps", str(UPDATE)]
    assert train.main([*TRAIN, *options]) == 0
    policies = (folder.parent / "part1.safetensors", untracked / "policy.safetensors")
    return request.param, folder, policies, home


def test_every_number_of_the_csv_is_tracked_at_its_env_step(tracked):
    service, folder, _, _ = tracked
    rows = dict(row for part in READ[service](folder) for row in part.rows)
    with (folder / "progress.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["time/total_timesteps"]) for row in table] == list(rows) == [UPDATE, 2 * UPDATE]
    for expected, row in zip(table, rows.values(), strict=True):
        numbers = {key: float(value) for key, value in expected.items() if value}
        assert {key: row[key] for key in numbers} == pytest.approx(numbers, rel=1e-6)
    assert "eval/mean_reward" in rows[2 * UPDATE]


def test_a_resumed_run_is_one_run_with_its_config_and_group(tracked):
    service, folder, _, _ = tracked
    parts = READ[service](folder)
    assert len({part.run_id for part in parts}) == 1
    last = parts[-1]
    assert (last.name, last.group) == ("a/ppo-seed3", "a")
    expected = {
        "env.env": "CartPole-v1",
        "seed": 3,
        "perception.memory.name": "gru",
        "agent.rollout_length": 16,
    }
    assert {name: last.config[name] for name in expected} == expected
    if service == "wandb":
        assert [part.config["total_env_steps"] for part in parts] == [UPDATE, 2 * UPDATE]


def test_tracking_does_not_change_the_weights(tracked):
    _, _, policies, _ = tracked
    tracked_weights, untracked_weights = map(load_file, policies)
    assert tracked_weights.keys() == untracked_weights.keys()
    for name, weights in tracked_weights.items():
        assert torch.equal(weights, untracked_weights[name])


def test_no_file_and_no_process_is_left_outside_the_run_folder(tracked):
    *_, home = tracked
    files = [path for path in home.rglob("*") if path.is_file()]
    assert [path for path in files if "torchinductor" not in str(path)] == []
    assert not [path for path in home.iterdir() if "wandb" in path.name]
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(home) not in lines


@pytest.mark.slow
@pytest.mark.parametrize("service", [WANDB, TRACKIO])
def test_a_run_that_starts_over_is_another_run_beside_the_first(service, tmp_path):
    code = (
        "for number, resumed in enumerate((False, True, False)):\n"
        "    tracker = track(resumed)\n"
        "    tracker.write({'eval/mean_reward': number / 2}, {}, 10 * number)\n"
        "    tracker.close()\n"
        "    time.sleep(1.001 - time.time() % 1.0)\n"  # wandb names folders by the second.
    )
    use_tracker(tmp_path, service, code)
    parts = READ[service](tmp_path / "basic" / "ppo-seed0")
    rows: dict[str, dict] = {}
    for part in parts:
        assert part.name == "basic/ppo-seed0"
        assert part.config["gamma"] == 0.9
        rows.setdefault(part.run_id, {}).update(
            {step: row["eval/mean_reward"] for step, row in part.rows}
        )
    assert sorted(rows.values(), key=min) == [{0: 0.0, 10: 0.5}, {20: 1.0}]


BREAK = {
    "wandb": "subprocess.run(['pkill', '-P', str(os.getpid()), 'wandb-core'])",
    "trackio": "time.sleep(1); (folder / 'trackio' / 'doomgrad.db').unlink(); "
    "(folder / 'trackio' / 'doomgrad.db').mkdir()",
}


@pytest.mark.parametrize("service", [SLOW_WANDB, SLOW_TRACKIO])
def test_a_service_that_fails_is_reported_in_one_line(service, tmp_path):
    code = (
        "tracker = track()\n"
        "tracker.write({'a': 1.0}, {}, 1)\n"
        f"{BREAK[service]}\n"
        "for step in range(2, 6):\n"
        "    time.sleep(0.3)\n"
        "    tracker.write({'a': 1.0}, {}, step)\n"
        "tracker.close()\n"
    )
    where, what = use_tracker(tmp_path, service, code)
    assert where.startswith("tracked: ")
    assert what.startswith(f"{service}: ")
    assert what.endswith("; the training continues, and TensorBoard has every record")


@pytest.mark.parametrize("service", [SLOW_WANDB, SLOW_TRACKIO])
def test_a_service_that_cannot_start_is_reported_in_one_line(service, tmp_path):
    """A file has the name of the folder that the service needs."""
    code = (
        f"(folder / {service!r}).write_text('')\n"
        "tracker = track()\n"
        "tracker.write({'a': 1.0}, {}, 1)\n"
        "tracker.close()\n"
    )
    lines = use_tracker(tmp_path, service, code)
    assert lines[-1].endswith("; the training continues, and TensorBoard has every record")
    assert [line for line in lines if line.startswith(f"{service}: ")] == lines[-1:]


@pytest.mark.parametrize("service", ["wandb", "trackio"])
def test_a_missing_service_is_named_before_anything_is_written(
    service, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, service, None)
    for variable in ("WANDB_SILENT", "WANDB_CACHE_DIR", "TRACKIO_DIR"):
        monkeypatch.setenv(variable, os.environ.get(variable, str(tmp_path)))
    folder = tmp_path / "run"
    monkeypatch.setattr(
        sys, "argv", ["train.py", *TRAIN, "--track", service, "--run-dir", str(folder)]
    )
    assert run(train.main) == 2
    line = f'error: {service} is not installed; pip install -e ".[{service}]"\n'
    assert capsys.readouterr().err == line
    assert not folder.exists()
