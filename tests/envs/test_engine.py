"""Starting and ending engines."""

import os
import re
import signal
import tempfile
import threading
from pathlib import Path

import pytest

from envs import EnvError
from envs.cfg import GameSpec, game_spec
from envs.engine import (
    ENGINE_ERRORS,
    RESOLUTIONS,
    end_engine,
    kill_engine,
    remove_leftovers,
    smallest_resolution,
    start_engine,
)
from tests.envs import processes


@pytest.mark.parametrize(
    ("asked", "drawn"),
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
def test_the_smallest_screen_that_holds_what_is_asked(asked, drawn):
    assert smallest_resolution(*asked) == drawn


@pytest.mark.parametrize("resolution", [RESOLUTIONS[0], RESOLUTIONS[2], RESOLUTIONS[-1]])
def test_draws_palette_indices_and_gives_variables_in_order(resolution):
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


def test_an_engine_that_cannot_start_is_reported_and_leaves_no_folder(tmp_path):
    for spec in (GameSpec(wad=tmp_path / "no.wad"), GameSpec(iwad=tmp_path / "no.wad")):
        with pytest.raises(EnvError, match=r"the Doom engine did not start: .*no\.wad"):
            start_engine(spec, resolution=(160, 120), variables=())


def test_the_working_directory_is_the_same_after_a_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    game, scratch = start_engine(game_spec("basic"), resolution=(160, 120), variables=())
    end_engine(game, scratch)
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_running_engine_has_no_named_shared_memory():
    game, scratch = start_engine(game_spec("basic"), resolution=(160, 120), variables=())
    try:
        instance = game.get_instance_id()
        assert list(Path("/dev/shm").glob(f"ViZDoom*{instance}")) == []
        game.new_episode()
        assert game.make_action([1, 0, 0], 4) == -4
    finally:
        end_engine(game, scratch)


KILLED = """
import os, signal
from envs.cfg import game_spec
from envs import engine
{before}
game, scratch = engine.start_engine(game_spec("basic"), resolution=(160, 120), variables=())
os.kill(os.getpid(), signal.SIGKILL)
"""
# Killed before the names of its shared memory are forgotten, or after.
MOMENTS = {
    "after": "",
    "before": "engine._forget_names = lambda _: os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_killed_owners_left_is_removed_and_nothing_else(tmp_path, monkeypatch, moment):
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


def test_a_hanging_engine_is_killed_and_its_owner_told():
    game, scratch = start_engine(game_spec("basic"), resolution=(160, 120), variables=())
    game.new_episode()
    os.kill(int((scratch / "engine").read_text().split()[0]), signal.SIGSTOP)
    killer = threading.Timer(0.5, kill_engine, (scratch,))
    killer.start()
    with pytest.raises(ENGINE_ERRORS):
        game.make_action([1, 0, 0], 4)
    end_engine(game, scratch)
    kill_engine(scratch)  # It is gone; nothing happens.
