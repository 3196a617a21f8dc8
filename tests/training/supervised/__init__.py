"""Tests of `training.supervised`."""
