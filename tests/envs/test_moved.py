"""Tests of `envs.moved`: files are the same wherever they are, if their content is."""

import hashlib
import shutil

import pytest

from envs import EnvError
from envs.doom.cfg import BUNDLED
from envs.moved import difference, find_moved, own_files, portable_name
from tests.envs.maps import room, write_wad

CFG = "doom_scenario_path = own.wad\navailable_buttons = { ATTACK }\n"


@pytest.fixture
def project(tmp_path):
    """Return a folder with an environment and the folder of a run."""
    (tmp_path / "old" / "maps").mkdir(parents=True)
    (tmp_path / "old" / "runs" / "own" / "ppo-seed0" / "episodes").mkdir(parents=True)
    write_wad(tmp_path / "old" / "maps" / "own.wad", [*room("MAP01"), *room("MAP02")])
    (tmp_path / "old" / "maps" / "own.cfg").write_text(CFG)
    return tmp_path / "old"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_files_of_a_user_are_noted_and_no_others(project):
    cfg, wad = project / "maps" / "own.cfg", project / "maps" / "own.wad"
    assert own_files(str(cfg)) == (f"cfg={sha256(cfg)}", f"wad={sha256(wad)}")
    assert own_files(f"{wad}:map02") == (f"wad={sha256(wad)}", "map=MAP02")
    assert own_files("basic") == own_files("freedoom2:MAP01") == own_files("CartPole-v1") == ()
    shutil.copy(BUNDLED / "basic.cfg", project)
    assert own_files(str(project / "basic.cfg")) == (f"cfg={sha256(BUNDLED / 'basic.cfg')}",)
    cfg.write_text(CFG + "doom_game_path = own.wad\n")
    names = [note.partition("=")[0] for note in own_files(str(cfg))]
    assert names == ["cfg", "wad", "iwad"]


@pytest.mark.parametrize("name", ["own.cfg", "own.wad", "own.wad:MAP02"])
@pytest.mark.parametrize(
    ("place", "of_run"),
    [
        ("new/maps", "new/runs/own/ppo-seed0"),  # the whole project was moved
        ("new/runs/own/ppo-seed0", "new/runs/own/ppo-seed0"),  # copied into the run folder
        ("new/runs/own/ppo-seed0", "new/runs/own/ppo-seed0/episodes"),
        ("new", "new/policy.safetensors"),  # beside a policy file
        ("here", "new/runs/own/ppo-seed0"),  # in the current folder
        ("here/maps", "new/runs/own/ppo-seed0"),
    ],
)
def test_files_that_were_moved_are_found(monkeypatch, tmp_path, project, name, place, of_run):
    env = str(project / "maps" / name)
    files = own_files(env)
    assert find_moved(env, files, project / "runs") == env
    project.rename(tmp_path / "new")
    target, run = tmp_path / place, tmp_path / of_run
    target.mkdir(parents=True, exist_ok=True)
    for file in ("own.cfg", "own.wad"):
        (tmp_path / "new" / "maps" / file).rename(target / file)
    run.touch()
    (tmp_path / "here").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "here")
    found = find_moved(env, files, run)
    assert found == str(target / name)
    assert own_files(found) == files
    assert portable_name(found) == f"{name.partition(':')[0]} ({', '.join(files)})"


def test_other_content_is_named_and_the_same_content_is_preferred(tmp_path, project):
    cfg = project / "maps" / "own.cfg"
    files = own_files(str(cfg))
    shutil.copytree(project / "maps", tmp_path / "copy")
    cfg.write_text(f"{CFG}living_reward = 1\n")
    before, now = files[0][4:16], sha256(cfg)[:12]
    message = f"own.cfg is not as it was .*: the SHA-256 of {cfg} begins with {now}, not {before};"
    with pytest.raises(EnvError, match=message):
        find_moved(str(cfg), files, project / "runs")
    assert find_moved(str(cfg), files, tmp_path / "copy") == str(tmp_path / "copy" / "own.cfg")
    (tmp_path / "copy" / "own.wad").write_bytes((project / "maps" / "own.wad").read_bytes() + b"\0")
    assert "own.wad begins with" in difference(str(tmp_path / "copy" / "own.cfg"), files)


def test_files_that_are_gone_are_said(tmp_path, project):
    env = str(project / "maps" / "own.cfg")
    files, run = own_files(env), project / "runs" / "own" / "ppo-seed0"
    shutil.rmtree(project / "maps")
    with pytest.raises(EnvError, match=f"own.cfg is gone; put it, .* into {run} or the current"):
        find_moved(env, files, run)
    shutil.copy(BUNDLED / "basic.cfg", run / "own.cfg")
    (run / "own.cfg").write_text(CFG)
    with pytest.raises(EnvError, match=r"names a WAD that does not exist: own\.wad"):
        find_moved(env, files, run)


def test_other_environments_and_runs_without_notes_are_left_alone(tmp_path):
    for env in ("basic", "freedoom2:MAP01", "CartPole-v1", "module:Env-v0"):
        assert find_moved(env, ("cfg=0",), tmp_path) == portable_name(env) == env
    assert find_moved("/no/such.cfg", (), tmp_path) == "/no/such.cfg"


@pytest.mark.parametrize("note", ["", "cfg", "=", "cfg=", "cfg=\x1b[2J", "map=MAP02"])
def test_notes_of_strangers_are_compared_as_any(project, note):
    with pytest.raises(EnvError, match="is not as it was") as refusal:
        find_moved(str(project / "maps" / "own.cfg"), (note,), project)
    assert str(refusal.value).isprintable()
