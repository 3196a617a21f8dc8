"""Tests of evaluation/, one file per module."""
