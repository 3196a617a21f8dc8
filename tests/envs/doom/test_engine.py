"""Tests of `envs.doom.engine`: starting and ending engines, and removing leftovers."""

import os
import re
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import pytest

from envs import EnvError
from envs.doom import engine
from envs.doom.cfg import GameSpec, game_spec
from envs.doom.engine import (
    ENGINE_ERRORS,
    RESOLUTIONS,
    abandon_engine,
    abandon_engines,
    end_engine,
    kill_engine,
    remove_leftovers,
    smallest_resolution,
    start_engine,
)
from tests.envs import processes


@pytest.mark.parametrize(
    ("requested", "resolution"),
    [
        ((1, 1), (160, 120)),
        ((128, 72), (160, 120)),
        ((160, 120), (160, 120)),
        ((161, 120), (200, 150)),
        ((84, 121), (200, 150)),
        ((640, 480), (640, 480)),
        ((1600, 1200), (1600, 1200)),
        ((5000, 10), (1600, 1200)),
    ],
)
def test_the_smallest_resolution_that_is_large_enough(requested, resolution):
    assert smallest_resolution(*requested) == resolution


@pytest.mark.parametrize("resolution", [RESOLUTIONS[0], RESOLUTIONS[-1]])
def test_draws_palette_indices_and_reports_variables_in_order(resolution):
    variables = ("HEALTH", "AMMO2", "KILLCOUNT")
    game, scratch = start_engine(
        game_spec("basic"), resolution=resolution, variables=variables, buffers=("labels",)
    )
    try:
        game.new_episode()
        state = game.get_state()
        assert state.screen_buffer.shape == state.labels_buffer.shape == resolution[::-1]
        assert state.game_variables.tolist() == [100, 50, 0]
        assert state.depth_buffer is None
        assert game.get_episode_timeout() == 0
    finally:
        end_engine(game, scratch)
    assert not scratch.exists()
    assert not game.is_running()
    end_engine(game, scratch)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
def test_an_engine_may_use_a_gigabyte():
    game, scratch = start_engine(game_spec("basic"), resolution=(160, 120), variables=())
    try:
        pid = (scratch / "engine").read_text().split()[0]
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(rf"Max address space +{2**30} +{2**30} +bytes", limits)
    finally:
        end_engine(game, scratch)


def test_an_engine_that_cannot_start_is_reported_and_leaves_no_folder(tmp_path):
    for spec in (GameSpec(wad=tmp_path / "no.wad"), GameSpec(iwad=tmp_path / "no.wad")):
        with pytest.raises(EnvError, match=r"the Doom engine did not start: .*no\.wad"):
            start_engine(spec, resolution=(160, 120), variables=())


def test_a_running_engine_has_no_named_shared_memory_and_another_working_directory(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    game, scratch = start_engine(game_spec("basic"), resolution=(160, 120), variables=())
    try:
        assert Path.cwd() == tmp_path
        instance = game.get_instance_id()
        assert list(Path("/dev/shm").glob(f"ViZDoom*{instance}")) == []
        game.new_episode()
        assert game.make_action([1, 0, 0], 4) == -4
    finally:
        end_engine(game, scratch)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal
from envs.doom.cfg import game_spec
from envs.doom import engine
{before}
game, scratch = engine.start_engine(game_spec("basic"), resolution=(160, 120), variables=())
os.kill(os.getpid(), signal.SIGKILL)
"""
# When the owner is killed: before or after the names of the shared memory are removed.
MOMENTS = {
    "after": "",
    "before": "engine._remove_shared_memory_names = lambda _: os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_leftovers_of_killed_owners_are_removed_and_nothing_else(tmp_path, monkeypatch, moment):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine, my_scratch = start_engine(game_spec("basic"), resolution=(160, 120), variables=())
    mark = f"{tmp_path}"
    owner = processes.start_script(KILLED.format(before=MOMENTS[moment]), mark, tmp_path)
    owner.communicate(timeout=60)
    assert owner.returncode == -signal.SIGKILL
    (left,) = set(tmp_path.glob("doomgrad-engine-*")) - {my_scratch}
    instance = re.findall(r"viz_instance_id (\w+)", (left / "engine").read_text())[0]
    named = [*Path("/dev/shm").glob(f"ViZDoom*{instance}")]
    assert bool(named) == (moment == "before")
    assert remove_leftovers() == 1
    assert [*Path("/dev/shm").glob(f"ViZDoom*{instance}")] == []
    assert list(tmp_path.glob("doomgrad-engine-*")) == [my_scratch]
    mine.new_episode()
    assert mine.make_action([1, 0, 0], 4) == -4
    end_engine(mine, my_scratch)
    assert remove_leftovers() == 0


def test_a_call_to_a_hanging_engine_raises_when_it_is_killed():
    game, scratch = start_engine(game_spec("basic"), resolution=(160, 120), variables=())
    game.new_episode()
    os.kill(int((scratch / "engine").read_text().split()[0]), signal.SIGSTOP)
    killer = threading.Timer(0.5, kill_engine, (scratch,))
    killer.start()
    with pytest.raises(ENGINE_ERRORS):
        game.make_action([1, 0, 0], 4)
    end_engine(game, scratch)
    kill_engine(scratch)  # It has ended; nothing happens.


def test_an_engine_can_be_abandoned():
    game, scratch = start_engine(game_spec("basic"), resolution=(160, 120), variables=())
    pid = int((scratch / "engine").read_text().split()[0])
    abandon_engine(scratch)
    assert not scratch.exists()
    assert processes.wait_until(lambda: not processes.is_running(pid), 5.0)
    end_engine(game, scratch)


@pytest.mark.parametrize("name", [".", 'a "quoted" name', "an 'other' $name"])
def test_engines_start_wherever_temporary_files_are(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", name if name == "." else str(tmp_path / name))
    game, scratch = start_engine(game_spec("basic"), resolution=(160, 120), variables=())
    assert scratch.parent == (tmp_path if name == "." else tmp_path / name)
    # As they may not be where the file system does not allow it.
    assert not [f for f in scratch.iterdir() if f.is_file() and os.access(f, os.X_OK)]
    end_engine(game, scratch)
    assert not scratch.exists()


def test_what_may_not_be_executed_is_named(tmp_path, monkeypatch):
    script = tmp_path / "start_engine.sh"
    script.write_text(engine._START.read_text())
    monkeypatch.setattr(engine, "_START", script)
    with pytest.raises(EnvError, match=r"start_engine\.sh may not be executed; allow it \(chmod"):
        start_engine(game_spec("basic"), resolution=(160, 120), variables=())


def test_an_engine_that_is_just_being_started_is_abandoned_with_its_shared_memory(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    started = []

    def start():
        started.append(start_engine(game_spec("basic"), resolution=(160, 120), variables=()))

    thread = threading.Thread(target=start)
    thread.start()
    assert processes.wait_until(lambda: bool([*tmp_path.glob("*/engine")]), 10.0)
    (record,) = tmp_path.glob("*/engine")
    assert processes.wait_until(record.read_text, 10.0)
    (instance,) = re.findall(r"viz_instance_id (\w+)", record.read_text())
    abandon_engines()
    assert list(tmp_path.iterdir()) == []
    assert [*Path("/dev/shm").glob(f"ViZDoom*{instance}")] == []
    thread.join()
    end_engine(*started[0])


ORPHANED = """
import os, signal, threading
from pathlib import Path
from envs.doom.cfg import game_spec
from envs.doom import engine
start = lambda: engine.start_engine(game_spec("basic"), resolution=(160, 120), variables=())
threading.Thread(target=start).start()
while not [*Path().glob("doomgrad-engine-*/engine")]:
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="engines outlive a killed process")
def test_an_engine_ends_whose_owner_died_before_it_could_be_told_so(tmp_path, monkeypatch):
    slow, real = tmp_path / "setpriv", shutil.which("setpriv")
    slow.write_text(f'#!/bin/sh\nsleep 0.5\nexec {real} "$@"\n')
    slow.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    owner = processes.start_script(ORPHANED, str(tmp_path), tmp_path)
    assert owner.wait(timeout=60) == -signal.SIGKILL
    (record,) = tmp_path.glob("doomgrad-engine-*/engine")
    pid = int(record.read_text().split()[0])
    ended = processes.wait_until(lambda: not processes.is_running(pid), 5.0)
    kill_engine(record.parent)
    owner.communicate()
    assert ended
    assert remove_leftovers() == 1
