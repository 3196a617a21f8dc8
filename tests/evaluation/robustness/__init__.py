"""Tests of `evaluation.robustness`."""
