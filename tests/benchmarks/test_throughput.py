"""Tests of `benchmarks.throughput`."""

from __future__ import annotations

from benchmarks.throughput import ceiling


def test_bare_engines_run_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ceiling("basic", 2, 0.2, pinned=True) > 100
