"""Tests of `envs.doom.trial`: files that end an engine are found without one in this process."""

import os
import shutil
from types import SimpleNamespace

import pytest

from envs import DoomEnv, EnvConfig, EnvError
from envs.doom import trial
from envs.doom.cfg import BUNDLED
from envs.doom.trial import check_playable
from tests.envs.maps import room, write_wad


@pytest.fixture
def trials(monkeypatch):
    """Return the trials that are made, as a list of command lines; they succeed at once."""
    made = []

    def start(code, arguments, **_):
        made.append([code, *arguments])
        return SimpleNamespace(communicate=lambda timeout: (None, b""), returncode=0)

    monkeypatch.setattr(trial, "start_python", start)
    monkeypatch.delenv(trial._PLAYED, raising=False)
    return made


CRASHES = {
    "DECORATE": (b"actor Foo { bogus", 'Script error, "own.wad:DECORATE" line 1: "bogus" is an'),
    "DEHACKED": (
        b"Patch File for DeHackEd v3.0\nDoom version = 21\nPatch format = 6\n\n"
        b"Thing 1 (Player)\nHit points = -1\n",
        "an episode ends before its first frame",
    ),
}


@pytest.mark.parametrize("lump", CRASHES)
def test_what_ends_an_engine_is_said_in_one_line(tmp_path, capfd, lump):
    content, reason = CRASHES[lump]
    path = write_wad(tmp_path / "own.wad", [*room(), (lump, content)])
    with pytest.raises(EnvError, match="cannot be played: ") as refusal:
        DoomEnv(EnvConfig(env=str(path)))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_a_crash_without_a_word_names_the_map(tmp_path, capfd):
    (_, text, _), script = room(), b"ACS\0\xff\xff\xff\x7f" + b"\xff" * 64
    lumps = [("MAP01", b""), ("TEXTMAP", text[1]), ("BEHAVIOR", script), ("ENDMAP", b"")]
    path = write_wad(tmp_path / "own.wad", lumps)
    with pytest.raises(EnvError, match=r"the engine ended when MAP01 started$"):
        check_playable(str(path))
    assert capfd.readouterr() == ("", "")


def test_the_same_files_are_tried_once(tmp_path, trials):
    path = write_wad(tmp_path / "own.wad", [*room("MAP01"), *room("MAP02")])
    for _ in range(3):
        check_playable(str(path))
    assert len(trials) == 1
    check_playable(f"{path}:MAP02")
    assert len(trials) == 2
    write_wad(path, [*room("MAP01"), ("CREDIT", b"x")])
    check_playable(str(path))
    assert len(trials) == 3
    # Worker processes inherit what was tried.
    assert len(os.environ[trial._PLAYED].split()) == 3


def test_bundled_files_need_no_trial(tmp_path, trials):
    shutil.copy(BUNDLED / "basic.cfg", tmp_path)
    for env in ("basic", "freedoom2:MAP01", "CartPole-v1", str(tmp_path / "basic.cfg")):
        check_playable(env)
    assert trials == []


def test_what_is_found_without_an_engine_needs_no_trial(tmp_path, trials):
    shutil.copy(BUNDLED / "cig.cfg", tmp_path)
    with pytest.raises(EnvError, match=r"cig\.wad: MAP01 has no start for a single player"):
        check_playable(str(tmp_path / "cig.cfg"))
    huge = write_wad(tmp_path / "huge.wad", [*room(), ("TEXTURES", b"Texture A, 32000, 32000 {}")])
    with pytest.raises(EnvError, match="the texture A has 32000 x 32000 pixels"):
        check_playable(str(huge))
    assert trials == []


def test_an_engine_that_hangs_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "_TRIAL", "import time; time.sleep(60)")
    monkeypatch.setattr(trial, "_WITHIN_S", 0.1)
    with pytest.raises(EnvError, match="cannot be played: the engine hangs when it starts"):
        check_playable(str(write_wad(tmp_path / "own.wad", room())))
