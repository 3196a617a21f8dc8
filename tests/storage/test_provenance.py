"""Tests of `storage.provenance`."""

from __future__ import annotations

import json
import re
import subprocess

from storage.provenance import PACKAGES, git_revision, hardware, versions


def test_versions_are_of_the_packages_that_are_installed():
    assert {"torch", "numpy", "gymnasium", "vizdoom"} <= versions().keys() <= set(PACKAGES)
    assert all(re.match(r"\d+\.\d+", version) for version in versions().values())


def test_the_revision_is_that_of_the_code():
    revision = git_revision()
    assert revision is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", revision)


def test_there_is_no_revision_without_git(monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert git_revision() is None


def test_the_machine_is_described():
    machine = hardware()
    assert machine["cpu"]
    assert machine["cores"] >= 1
    assert json.loads(json.dumps(machine)) == machine
