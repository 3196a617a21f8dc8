"""The README is true where a program can tell."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
FOLDERS = "agents|benchmarks|commands|deploy|envs|evaluation|perception|storage|tests|training"


def test_pictures_and_pages_it_points_to_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_files_it_names_exist():
    for name in re.findall(rf"`((?:{FOLDERS})/[\w./]+)`", README):
        assert (ROOT / name).exists(), name


def test_every_guarantee_names_tests_that_exist():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    lines = [line for line in GUARANTEES.splitlines() if re.match(r"\| (?!guarantee|---)", line)]
    assert len(lines) > 20
    for line in lines:
        named = re.findall(
            r"`(test_\w+?)(?:_?\.\.\.)?`|`(tests/[\w/]+\.py)`", line.rsplit("|", 2)[1]
        )
        assert named, line
        for test, file in named:
            assert f"def {test}" in tests if test else (ROOT / file).is_file(), (test, file)


def test_it_is_short():
    assert len(README.split()) <= 1200
