"""Starting and ending engines."""

from pathlib import Path

import pytest

from envs import EnvError
from envs.cfg import GameSpec, game_spec
from envs.engine import RESOLUTIONS, end_engine, smallest_resolution, start_engine


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
