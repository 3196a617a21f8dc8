"""What import-linter cannot see: importing has no side effects, and nothing anywhere unpickles."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "agents",
    "commands",
    "deploy",
    "envs",
    "evaluation",
    "perception",
    "processes",
    "storage",
    "training",
)
SOURCES = [
    ROOT / "train.py",
    ROOT / "evaluate.py",
    *(file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))),
]
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_programs_do_not_import_each_other(command):
    assert not imported_modules(ROOT / f"{command}.py") & {"train", "evaluate"}


@pytest.mark.parametrize(("command", "lines"), [("train", 300), ("evaluate", 120)])
def test_programs_are_short(command, lines):
    assert len((ROOT / f"{command}.py").read_text().splitlines()) <= lines


def test_workers_import_neither_torch_nor_tyro():
    found = "{'torch', 'tyro', 'rich'} & set(sys.modules)"
    code = f"import sys, envs.vector.worker; print(sorted({found}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_starts_no_engine_and_writes_no_file(tmp_path):
    code = f"import {', '.join(PACKAGES)}, train, evaluate"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


# Nothing anywhere unpickles.


def dangers(tree: ast.AST) -> Iterator[str]:
    """Yield calls and imports by which a file could run code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in UNPICKLERS:
                yield node.module or ""
            yield from (a.name for a in node.names if a.name in UNPICKLERS)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            allowed = any(
                k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords
            )
            numpy_load = called in ("np.load", "numpy.load") and not allowed
            if numpy_load or called in ("eval", "exec", "compile", "__import__", "torch.load"):
                yield called


def test_no_source_unpickles_or_evaluates():
    assert len(SOURCES) > 50
    found = {str(f): list(dangers(ast.parse(f.read_text()))) for f in SOURCES}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "from torch.serialization import pickle",
        "torch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
    ],
)
def test_the_search_for_unpicklers_finds_them(source):
    assert list(dangers(ast.parse(source)))
