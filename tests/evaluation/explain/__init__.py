"""Tests of `evaluation.explain`."""
