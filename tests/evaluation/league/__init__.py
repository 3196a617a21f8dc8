"""Tests of `evaluation.league`."""
