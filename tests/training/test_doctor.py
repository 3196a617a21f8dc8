"""Tests of `training.doctor`."""

from __future__ import annotations

import train
from training import doctor


def test_it_prints_what_a_machine_has(capsys):
    assert train.main(["--doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok   ") for line in lines)
    for name in ("python", "torch", "vizdoom", "processor", "GPU", "shared memory", "leftovers"):
        assert any(line[5:].startswith(name) for line in lines), name


def test_what_is_missing_is_named_with_what_to_do(capsys, monkeypatch):
    def version(name):
        return None if name == "vizdoom" else "1.0"

    monkeypatch.setattr(doctor, "installed_version", version)
    monkeypatch.setattr(doctor, "check_engines", lambda: iter(()))
    assert doctor.check_machine() == 1
    bad = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BAD")]
    assert [line.split() for line in bad] == [
        ["BAD", "vizdoom", "is", "not", "installed;", "pip", "install", "-e", '"."']
    ]
