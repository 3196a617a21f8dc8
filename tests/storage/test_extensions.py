"""Tests of `storage.extensions`, from `--import` in training to `--trust` in scoring."""

from __future__ import annotations

import shutil
import sys

import pytest

import evaluate
import train
from agents import AGENTS, OBJECTIVES
from perception import ENCODERS, MEMORIES
from storage.extensions import import_extensions
from storage.files import FileError
from storage.policy_file import load_policy
from storage.tensor_file import TensorFile, write_tensors
from tests.programs import SHARED, refused, succeed

OWN = '''
"""An agent, an encoder, a memory and an objective, each a copy of one of the project's."""
from agents import AGENTS, OBJECTIVES, PPO, PPOConfig
from agents.objectives import Contrastive, ContrastiveConfig
from perception import ENCODERS, MEMORIES
from perception.encoders import NatureCNN, NatureConfig
from perception.memory import GRU, GRUConfig

class OwnAgentConfig(PPOConfig): pass
class OwnAgent(PPO): pass
class OwnEncoderConfig(NatureConfig): pass
class OwnEncoder(NatureCNN): pass
class OwnMemoryConfig(GRUConfig): pass
class OwnMemory(GRU): pass
class OwnObjectiveConfig(ContrastiveConfig): pass
class OwnObjective(Contrastive): pass

AGENTS["own"] = (OwnAgentConfig, OwnAgent)
ENCODERS["own"] = (OwnEncoderConfig, OwnEncoder)
MEMORIES["own"] = (OwnMemoryConfig, OwnMemory)
OBJECTIVES["own"] = (OwnObjectiveConfig, OwnObjective)
'''
CHOICES = ("--agent", "own", "--encoder", "own", "--memory", "own", "--objectives", "own")


def forget():
    """Make this process forget the modules and parts that tests imported."""
    for registry in (AGENTS, ENCODERS, MEMORIES, OBJECTIVES):
        registry.pop("own", None)
    for name in ("own", "own_module"):
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def _forgets():
    yield
    forget()


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)


@pytest.mark.slow
def test_parts_of_the_users_own_are_trained_scored_and_moved(own, tmp_path, capsys):
    command = ("basic", "--import", "own.py", *CHOICES, *SHARED, "--no-record", "--run-dir", "run")
    succeed(train, *command)
    forget()
    # It is imported by scoring only if the file is trusted.
    line = refused(capsys, evaluate, "score", "run", "--episodes", "1")
    assert "unknown encoder 'own'" in line
    assert f"--import {tmp_path / 'own.py'}: if you trust that code, add --trust to" in line
    succeed(evaluate, "score", "run", "--episodes", "1", "--trust")
    forget()
    succeed(evaluate, "export", "run", "--trust")
    forget()
    # Elsewhere, it is found beside the policy.
    shutil.move("run", "moved")
    shutil.move("own.py", "moved")
    assert load_policy(tmp_path / "moved" / "policy.safetensors", trust=True).policy.is_recurrent
    forget()
    # A run resumes from wherever its modules are now.
    command = (*command[:2], "moved/own.py", *command[3:-1], "moved")
    succeed(train, *command, "--total-env-steps", "192")
    assert load_policy(tmp_path / "moved" / "policy.safetensors").about.env_steps == 192


def test_a_module_is_imported_once(own, tmp_path):
    stored = import_extensions(["own.py"])
    first = ENCODERS["own"]
    assert stored == (str(tmp_path / "own.py"),)
    assert import_extensions([str(tmp_path / "own.py")]) == stored
    assert ENCODERS["own"] is first


def test_a_file_may_be_called_like_another_module(tmp_path):
    (tmp_path / "json.py").write_text("from perception import MEMORIES; MEMORIES['own'] = ()")
    module = sys.modules["json"]
    import_extensions([str(tmp_path / "json.py")])
    assert "own" in MEMORIES
    assert sys.modules["json"] is module


def test_an_installed_module_is_imported_by_name(tmp_path, monkeypatch):
    (tmp_path / "own_module.py").write_text("from perception import MEMORIES; MEMORIES['own'] = ()")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_extensions(["own_module"]) == ("own_module",)
    assert "own" in MEMORIES


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.py", None, "^there is no missing.py to import$"),
        ("missing", None, "^missing cannot be imported: it is not installed; name a file as my.py"),
        ("own.py", "1 / 0", "^own.py cannot be imported: ZeroDivisionError: division by zero$"),
        (
            "own.py",
            "import nothing_at_all",
            "ModuleNotFoundError: No module named 'nothing_at_all'",
        ),
    ],
)
def test_what_cannot_be_imported_is_refused(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(FileError, match=message):
        import_extensions([name])
    assert "own" not in sys.modules


@pytest.mark.parametrize("imports", ["own.py", [1], {"a": 1}], ids=str)
def test_names_of_modules_in_a_file_are_checked(tmp_path, cartpole_run, imports):
    file = TensorFile(cartpole_run / "policy.safetensors")
    path = tmp_path / "policy.safetensors"
    write_tensors(path, file.tensors(), {**file.description, "imports": imports})
    with pytest.raises(FileError, match="imports is not a list of names"):
        load_policy(path, trust=True)


@pytest.mark.slow
def test_a_training_imports_nothing_for_the_policy_that_it_starts_from(own, tmp_path, capsys):
    succeed(train, "basic", "--import", "own.py", *CHOICES, *SHARED, "--run-dir", "run")
    forget()
    line = refused(capsys, train, "basic", "--init-from", "run", *SHARED, "--run-dir", "other")
    assert "unknown encoder 'own'" in line
    assert "this --import to train.py" in line
    assert "own" not in ENCODERS
