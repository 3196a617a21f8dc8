"""Tests of `envs.fingerprint`."""

import hashlib
import shutil

import pytest
import vizdoom

from envs import EnvError
from envs.doom.cfg import BUNDLED
from envs.fingerprint import changed_versions, fingerprint, refuse_other_files


@pytest.fixture
def copied(tmp_path):
    for name in ("basic.cfg", "basic.wad"):
        shutil.copy(BUNDLED / name, tmp_path)
    return str(tmp_path / "basic.cfg")


def test_the_fingerprint_of_doom_is_its_files_and_the_engines_version(copied):
    found = fingerprint(copied)
    assert found == fingerprint("basic")
    assert found.keys() == {"cfg", "wad", "iwad", "vizdoom"}
    assert found["wad"] == hashlib.sha256((BUNDLED / "basic.wad").read_bytes()).hexdigest()
    assert found["vizdoom"] == vizdoom.__version__


def test_the_fingerprint_of_other_environments_is_their_packages_versions():
    assert fingerprint("CartPole-v1").keys() == {"gymnasium"}
    assert fingerprint("ALE/Pong-v5").keys() == {"gymnasium", "ale_py"}
    assert fingerprint("tests.agents.toy:Counter-v0").keys() == {"gymnasium"}
    refuse_other_files("CartPole-v1", fingerprint("CartPole-v1"))


@pytest.mark.parametrize("name", ["basic.cfg", "basic.wad"])
def test_a_changed_file_is_named(tmp_path, copied, name):
    recorded = fingerprint(copied)
    refuse_other_files(copied, recorded)
    with (tmp_path / name).open("ab") as file:
        file.write(b"\n# \n")
    with pytest.raises(EnvError, match=f"{name} is not the file .*; restore the original file"):
        refuse_other_files(copied, recorded)


def test_changed_versions_are_named():
    recorded = fingerprint("basic")
    assert changed_versions("basic", recorded) == ""
    now = recorded["vizdoom"]
    changed = changed_versions("basic", {**recorded, "vizdoom": "1.2.4"})
    assert changed == f"vizdoom 1.2.4, now {now}"
