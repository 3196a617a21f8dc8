"""Tests of `envs.doom.wad`: lumps, palette and maps, and files that are not WADs."""

import struct

import numpy as np
import pytest

from envs import EnvError
from envs.doom.cfg import BUNDLED, FREEDOOM2
from envs.doom.scenarios import FREEDOOM_MAPS
from envs.doom.wad import check_start, check_textures, maps, read_directory, read_palette
from tests.envs.maps import room, write_wad

COLOURS = bytes(range(256)) * 3


def test_lists_lumps_in_file_order(tmp_path):
    path = write_wad(tmp_path / "a.wad", [("ONE", b"abc"), ("EMPTY", b""), ("EIGHTCHR", b"defg")])
    assert read_directory(path) == (("ONE", 12, 3), ("EMPTY", 15, 0), ("EIGHTCHR", 15, 4))


def test_lists_maps_of_every_format(tmp_path):
    old = [("E1M1", b""), ("THINGS", b""), ("LINEDEFS", b"")]
    path = write_wad(tmp_path / "a.wad", [("CREDITS", b"x"), *old, *room("map07")])
    assert maps(path) == ["E1M1", "MAP07"]


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
    with pytest.raises(EnvError, match="is a folder; name a file"):
        read_directory(tmp_path)


def test_refuses_an_archive_with_the_name_of_a_wad(tmp_path):
    path = tmp_path / "a.wad"
    path.write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(EnvError, match=r"is a \.pk3 .*, which is not supported; a \.wad is"):
        read_directory(path)


def things(*kinds: int, hexen: bool = False) -> list[tuple[str, bytes]]:
    """Return the lumps of a binary map with things of these types."""
    layout = "<10xh8x" if hexen else "<6xh2x"
    lumps = [("MAP01", b""), ("THINGS", b"".join(struct.pack(layout, kind) for kind in kinds))]
    return [*lumps, ("LINEDEFS", b""), *([("BEHAVIOR", b"ACS")] if hexen else [])]


def text(things: bytes) -> list[tuple[str, bytes]]:
    """Return the lumps of a map in text with these things."""
    return [("MAP01", b""), ("TEXTMAP", things), ("ENDMAP", b"")]


@pytest.mark.parametrize(
    "lumps",
    [
        room(),
        things(11, 1),
        things(1, 3004, hexen=True),
        text(b"THING{TYPE=1;}"),
        text(b"thing { x = 1.0; type = 11; } thing\n{\ntype = 0x1 ;}"),
        # The last map of this name is the one that is played.
        [*things(11), *room()],
    ],
)
def test_a_map_in_which_a_single_player_can_start(tmp_path, lumps):
    check_start(write_wad(tmp_path / "a.wad", lumps), "map01")


@pytest.mark.parametrize(
    "lumps",
    [
        things(),
        things(11, 11, 3004),
        things(2, 257, hexen=True),
        # In the other format, these bytes would be a start.
        [*things(11), ("CREDIT", b"x"), ("BEHAVIOR", b"ACS")],
        text(b"thing { type = 11; } thing { type = 10; }"),
        text(b"// thing { type = 1; }\n/* type = 1; \n */ thing { subtype = 1; }"),
        [*room(), *things(11)],
        [("MAP01", b""), ("THINGS", b"\xff" * 13)],
    ],
)
def test_a_map_without_a_start_for_a_single_player_is_named(tmp_path, lumps):
    path = write_wad(tmp_path / "a.wad", lumps)
    message = r"a\.wad: MAP01 has no start for a single player \(thing 1\)"
    with pytest.raises(EnvError, match=message):
        check_start(path, "map01")


def test_the_map_for_competitions_has_no_start_but_those_of_freedoom_have():
    with pytest.raises(EnvError, match="MAP01 has no start for a single player"):
        check_start(BUNDLED / "cig.wad", "MAP01")
    for game, names in FREEDOOM_MAPS.items():
        for name in names[::7]:
            check_start(FREEDOOM2.parent / f"{game}.wad", name)


def binary_textures(width: int, height: int) -> bytes:
    """Return a list of one texture."""
    return struct.pack("<II8s4xHH", 1, 8, b"HUGE", width, height) + bytes(16)


@pytest.mark.parametrize(
    ("lump", "content"),
    [
        ("TEXTURES", b'WallTexture HUGE, 32000, 32000 { Patch "W94_1", 0, 0 }'),
        ("TEXTURES", b'// none\n  sprite  "HUGE" , 4097 , 4096\n{}'),
        ("TEXTURES", b"flat\nOptional HUGE\n9999999999999\n99999999999999 {}"),
        ("HIRESTEX", b"define HUGE 70000 4000"),
        ("TEXTURE1", binary_textures(32767, 32767)),
        ("TEXTURE2", binary_textures(65535, 600)),
    ],
)
def test_a_texture_that_would_need_gigabytes_is_named(tmp_path, lump, content):
    path = write_wad(tmp_path / "a.wad", [*room(), (lump, content)])
    with pytest.raises(EnvError, match=r"the texture HUGE has .* pixels; at most 16,777,216"):
        check_textures(path)


@pytest.mark.parametrize(
    ("lump", "content"),
    [
        ("TEXTURES", b"WallTexture A, 4096, 4096 {}\nTexture B, 64, 128\n{\n}"),
        ("TEXTURE1", binary_textures(1024, 1024)),
        ("TEXTURE1", b"\xff" * 50),
        ("TEXTURE1", b"\x01"),
        ("TEXTURES", b"\xff\0" * 50),
        # Matching them must not take time that grows with the square of their length.
        ("TEXTURES", b"\n" * 300_000),
        ("TEXTURES", b"Texture A" + b" " * 300_000),
    ],
)
def test_other_textures_are_left_to_the_engine(tmp_path, lump, content):
    check_textures(write_wad(tmp_path / "a.wad", [(lump, content)]))


def test_bundled_textures_are_small_enough():
    for path in (*BUNDLED.glob("*.wad"), *FREEDOOM2.parent.glob("*.wad")):
        check_textures(path)
