"""What import-linter cannot see: the commands are modules, and importing has no side effects."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_commands_do_not_import_each_other(command):
    assert not imported_modules(ROOT / f"{command}.py") & {"train", "evaluate"}


def test_workers_import_neither_torch_nor_tyro():
    code = "import sys, envs.worker; print(sorted({'torch', 'tyro', 'rich'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_starts_no_engine_and_writes_no_file(tmp_path):
    code = "import envs, agents, perception"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
