"""Tests of evaluation/replay/, one file per module."""
