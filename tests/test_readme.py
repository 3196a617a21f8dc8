"""The README is true where a program can tell."""

import re
from pathlib import Path

from envs import SCENARIOS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def number(value: float) -> str:
    return f"{value:g}"


def test_the_table_of_scenarios_is_the_programs_own():
    for scenario in SCENARIOS.values():
        reference = number(scenario.reference.mean) if scenario.reference else ""
        row = (
            f"| `{scenario.name}` | {scenario.rewards} | {scenario.skill} | "
            f"{scenario.time_limit} | {number(scenario.noop)} | {number(scenario.random)} | "
            f"{reference} |"
        )
        assert row in README


def test_pictures_and_pages_it_points_to_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_files_it_names_exist():
    for name in re.findall(r"`((?:agents|envs|perception|benchmarks|tests)/[\w./]+)`", README):
        assert (ROOT / name).exists(), name


def test_every_promise_names_tests_that_exist():
    section = README.split("## What it promises")[1].split("\n## ")[0]
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    for line in lines:
        named = re.findall(
            r"`(test_\w+?)(?:_?\.\.\.)?`|`(tests/[\w/]+\.py)`", line.rsplit("|", 2)[1]
        )
        assert named, line
        for test, file in named:
            assert f"def {test}" in tests if test else (ROOT / file).is_file(), (test, file)
