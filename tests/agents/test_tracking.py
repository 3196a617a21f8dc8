"""Tests of `agents.tracking`, with the real services: by reading back what they wrote."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
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
from agents.commandline import run

ROOT = Path(__file__).parents[2]
SERVICES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None,
            reason=f'{name} is not installed: pip install -e ".[{name}]"',
        ),
    )
    for name in ("wandb", "trackio")
]
# Real trainings, of which those with trackio are among the slow tests.
TRAINED_WITH = [SERVICES[0], pytest.param("trackio", marks=[*SERVICES[1].marks, pytest.mark.slow])]
TRAIN = ["train.py", "CartPole-v1", "--num-envs", "4", "--rollout-length", "16", "--memory", "gru"]
TRAIN += ["--eval-episodes", "2", "--eval-every", "128", "--seed", "3"]


@dataclass
class Tracked:
    """A part of a run as a service kept it."""

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
    """Take LevelDB's log format apart: blocks of 32 kB with records, or pieces of them."""
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
        if kind in (1, 4):  # Whole, or a last piece.
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
    """Run Python where nothing but `home` belongs to the user."""
    theirs = ("WANDB", "TRACKIO", "HF_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(theirs)}
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
    """Run code that has a `tracker` on the run folder `home`/basic/ppo-seed0; give what it said."""
    before = (
        "import os, subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from agents.tracking import Tracker\n"
        f"folder = Path({str(home)!r}) / 'basic' / 'ppo-seed0'\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "def track(resumed=False):\n"
        "    say = lambda line: print(line, file=sys.stderr)\n"
        f"    return Tracker({service!r}, folder, {{'gamma': 0.9}}, resumed=resumed, say=say)\n"
    )
    done = python(home, "-c", before + code)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.fixture(scope="module", params=TRAINED_WITH)
def tracked(request, tmp_path_factory):
    """Train in two parts, tracked; keep the first one's policy, and an untracked one's."""
    home, runs = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("runs")
    folder, untracked = runs / "a" / "ppo-seed3", runs / "untracked"
    for steps in ("256", "512"):
        options = ["--run-dir", str(folder), "--track", request.param, "--total-env-steps", steps]
        done = python(home, *TRAIN, *options)
        assert done.stderr.count("tracked: ") == 1
        assert request.param not in done.stdout
        if steps == "256":
            shutil.copy(folder / "policy.safetensors", runs / "tracked.safetensors")
    python(home, *TRAIN, "--run-dir", str(untracked), "--total-env-steps", "256")
    policies = (runs / "tracked.safetensors", untracked / "policy.safetensors")
    return request.param, folder, policies, home


def test_it_has_every_number_of_the_table_at_its_env_step(tracked):
    service, folder, _, _ = tracked
    rows = dict(row for part in READ[service](folder) for row in part.rows)
    with (folder / "progress.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert (
        [int(row["time/total_timesteps"]) for row in table]
        == list(rows)
        == [64 * update for update in range(1, 9)]
    )
    for expected, row in zip(table, rows.values(), strict=True):
        numbers = {key: float(value) for key, value in expected.items() if value}
        assert {key: row[key] for key in numbers} == pytest.approx(numbers, rel=1e-6)
    assert "eval/mean_reward" in rows[512]


def test_both_parts_are_one_run_with_its_config_and_group(tracked):
    service, folder, _, _ = tracked
    parts = READ[service](folder)
    assert len({part.run_id for part in parts}) == 1
    last = parts[-1]
    assert (last.name, last.group) == ("a/ppo-seed3", "a")
    expected = {"env": "CartPole-v1", "seed": 3, "memory": "gru", "rollout_length": 16}
    assert expected.items() <= last.config.items()
    if service == "wandb":
        assert [part.config["total_env_steps"] for part in parts] == [256, 512]


def test_it_changes_nothing_in_what_is_learned(tracked):
    _, _, policies, _ = tracked
    ours, theirs = map(load_file, policies)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_nothing_is_written_or_left_elsewhere(tracked):
    *_, home = tracked
    files = [path for path in home.rglob("*") if path.is_file()]
    assert [path for path in files if "torchinductor" not in str(path)] == []
    assert not [path for path in home.iterdir() if "wandb" in path.name]
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(home) not in lines


@pytest.mark.parametrize("service", SERVICES)
def test_what_starts_over_is_another_run_beside_the_first(service, tmp_path):
    code = (
        "for number, resumed in enumerate((False, True, False)):\n"
        "    tracker = track(resumed)\n"
        "    tracker.write({'eval/mean_reward': number / 2}, {}, 10 * number)\n"
        "    tracker.close()\n"
        "    time.sleep(1.1)\n"  # wandb names folders by the second.
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


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_breaks_is_one_line(service, tmp_path):
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
    assert what.endswith("; the training goes on, TensorBoard has it all")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_cannot_begin_is_one_line(service, tmp_path):
    """The place of its files is taken by a file."""
    code = (
        f"(folder / {service!r}).write_text('')\n"
        "tracker = track()\n"
        "tracker.write({'a': 1.0}, {}, 1)\n"
        "tracker.close()\n"
    )
    lines = use_tracker(tmp_path, service, code)
    assert lines[-1].endswith("; the training goes on, TensorBoard has it all")
    assert [line for line in lines if line.startswith(f"{service}: ")] == lines[-1:]


@pytest.mark.parametrize("service", ["wandb", "trackio"])
def test_a_service_that_is_not_installed_is_named_before_anything_begins(
    service, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, service, None)
    for variable in ("WANDB_SILENT", "WANDB_CACHE_DIR", "TRACKIO_DIR"):
        monkeypatch.setenv(variable, os.environ.get(variable, str(tmp_path)))
    folder = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", [*TRAIN, "--track", service, "--run-dir", str(folder)])
    assert run(train.main, train.USER_ERRORS) == 2
    line = f'error: {service} is not installed; pip install -e ".[{service}]"\n'
    assert capsys.readouterr().err == line
    assert not folder.exists()
