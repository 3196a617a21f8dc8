"""Tests of `envs.doctor`."""

import shutil
from pathlib import Path

import pytest

from envs.doctor import check_engines
from envs.doom import engine
from envs.doom.engine import SHARED_MEMORY

WITHOUT_ROOM = Path("/proc")  # a file system that reports 0 bytes of free space


def by_name(folder=SHARED_MEMORY):
    return {name: (passed, text) for passed, name, text in check_engines(folder)}


def test_a_usual_machine_passes_every_check(monkeypatch):
    usage = shutil._ntuple_diskusage(total=2**30, used=0, free=2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    checks = by_name()
    assert list(checks) == ["shared memory", "setpriv", "engine", "sound", "leftovers"]
    assert all(passed for passed, _ in checks.values())
    assert "free in /dev/shm, enough for about" in checks["shared memory"][1]
    assert checks["leftovers"][1] == "none"


@pytest.mark.skipif(not WITHOUT_ROOM.is_dir(), reason="there is no /proc")
def test_full_shared_memory_is_reported_with_what_to_do():
    assert shutil.disk_usage(WITHOUT_ROOM).free == 0
    passed, text = by_name(WITHOUT_ROOM)["shared memory"]
    assert not passed
    assert text == ("0 MB free in /proc, enough for about 0 engines; in Docker, add --shm-size=1g")


def test_a_system_without_a_folder_for_shared_memory_passes(tmp_path):
    assert by_name(tmp_path / "missing")["shared memory"] == (
        True,
        "cannot be measured on this system",
    )


def test_a_missing_setpriv_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    passed, text = by_name()["setpriv"]
    assert not passed
    assert "package util-linux" in text


def test_an_engine_that_does_not_start_is_reported(monkeypatch, tmp_path):
    script = tmp_path / "start_engine.sh"
    script.touch()
    monkeypatch.setattr(engine, "_START", script)
    passed, text = by_name()["engine"]
    assert not passed
    assert text.startswith(f"{script} may not be executed; allow it")


def test_leftovers_are_removed_and_counted(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "doomgrad-engine-abc"
    left.mkdir()
    (left / "owner").touch()  # Nobody holds a lock on it.
    assert by_name()["leftovers"] == (True, "of 1 engines, now removed")
    assert not left.exists()
    assert by_name()["leftovers"] == (True, "none")
