"""Tests of `envs.doom.wad`: lumps, palette and maps, and files that are not WADs."""

import struct

import numpy as np
import pytest

from envs import EnvError
from envs.doom.cfg import BUNDLED, FREEDOOM2
from envs.doom.scenarios import FREEDOOM_MAPS
from envs.doom.wad import first_map, maps, read_directory, read_palette
from tests.envs.maps import room, write_wad

COLOURS = bytes(range(256)) * 3


def test_lists_lumps_in_file_order(tmp_path):
    path = write_wad(tmp_path / "a.wad", [("ONE", b"abc"), ("EMPTY", b""), ("EIGHTCHR", b"defg")])
    assert read_directory(path) == [("ONE", 12, 3), ("EMPTY", 15, 0), ("EIGHTCHR", 15, 4)]


def test_lists_maps_of_every_format(tmp_path):
    old = [("E1M1", b""), ("THINGS", b""), ("LINEDEFS", b"")]
    path = write_wad(tmp_path / "a.wad", [("CREDITS", b"x"), *old, *room("map07")])
    assert maps(path) == ["E1M1", "MAP07"]
    assert first_map(path) == "E1M1"


def test_a_map_whose_name_is_a_command_is_skipped(tmp_path):
    path = write_wad(tmp_path / "a.wad", [*room("a;quit"), *room("b c"), *room("MAP02")])
    assert maps(path) == ["MAP02"]


@pytest.mark.parametrize("game", FREEDOOM_MAPS)
def test_the_bundled_iwads_contain_the_listed_maps(game):
    assert sorted(maps(FREEDOOM2.parent / f"{game}.wad")) == sorted(FREEDOOM_MAPS[game])


def test_a_wads_own_palette_takes_precedence_over_the_iwads(tmp_path):
    own = write_wad(tmp_path / "own.wad", [("PLAYPAL", COLOURS)])
    plain = write_wad(tmp_path / "plain.wad", room())
    np.testing.assert_array_equal(
        read_palette(FREEDOOM2, own), np.frombuffer(COLOURS, np.uint8).reshape(256, 3)
    )
    game = read_palette(FREEDOOM2, None)
    assert game.shape == (256, 3)
    assert game[0].tolist() == [0, 0, 0]
    assert len(np.unique(game, axis=0)) > 200
    np.testing.assert_array_equal(read_palette(FREEDOOM2, plain), game)


def test_refuses_an_iwad_without_a_palette():
    with pytest.raises(EnvError, match="contains no palette"):
        read_palette(BUNDLED / "basic.wad", None)


def test_refuses_a_wad_without_a_map(tmp_path):
    with pytest.raises(EnvError, match="contains no map"):
        first_map(write_wad(tmp_path / "a.wad", [("PLAYPAL", COLOURS)]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PWAD",
        b"hello, this is not a WAD at all",
        struct.pack("<4sii", b"PWAD", -1, 12),
        struct.pack("<4sii", b"PWAD", 2**30, 12),
        struct.pack("<4sii", b"PWAD", 1, -5),
        struct.pack("<4sii", b"PWAD", 1, 10_000),
        struct.pack("<4sii", b"ZWAD", 0, 12),
    ],
)
def test_refuses_what_is_not_a_wad_in_one_line(tmp_path, content):
    path = tmp_path / "a.wad"
    path.write_bytes(content)
    with pytest.raises(EnvError, match="is not a WAD") as refusal:
        read_directory(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("lost", [1, 16, 40])
def test_refuses_a_truncated_wad(tmp_path, lost):
    path = write_wad(tmp_path / "a.wad", [("PLAYPAL", COLOURS), *room()])
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(EnvError, match="damaged"):
        read_directory(path)


@pytest.mark.parametrize("start", [-1, 10, 2**31 - 1])
def test_refuses_a_wad_whose_lumps_are_outside_the_file(tmp_path, start):
    path = tmp_path / "a.wad"
    lump = struct.pack("<ii8s", start, 768, b"PLAYPAL")
    path.write_bytes(struct.pack("<4sii", b"PWAD", 1, 12) + lump)
    with pytest.raises(EnvError, match="damaged"):
        read_palette(FREEDOOM2, path)


def test_refuses_a_missing_wad(tmp_path):
    with pytest.raises(EnvError, match="there is no WAD at"):
        read_directory(tmp_path / "a.wad")


def test_refuses_a_folder(tmp_path):
    with pytest.raises(EnvError, match="is not a WAD"):
        read_directory(tmp_path)
