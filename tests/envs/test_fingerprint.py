"""Tests of `envs.fingerprint`."""

import hashlib
import shutil

import pytest
import vizdoom

from envs import EnvConfig, EnvError
from envs.doom.cfg import BUNDLED
from envs.doom.maps.maze import MazeConfig
from envs.fingerprint import (
    changed_versions,
    episode_fingerprint,
    fingerprint,
    refuse_other_files,
    refuse_other_map,
)


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


def test_a_generated_map_is_part_of_the_fingerprint_of_an_episode():
    config = EnvConfig(env="maps:maze")
    found = episode_fingerprint(config, 3)
    assert found.keys() == {"iwad", "vizdoom", "map"}
    assert found["map"] != episode_fingerprint(config, 4)["map"]
    refuse_other_map(config, 3, found)
    other = EnvConfig(env="maps:maze", map=MazeConfig(loops=0.5))
    with pytest.raises(EnvError, match=r"the map that maps:maze makes of seed 3 is not the one"):
        refuse_other_map(other, 3, found)
    assert episode_fingerprint(EnvConfig(), 3) == fingerprint("basic")
    refuse_other_map(EnvConfig(), 3, fingerprint("basic"))
