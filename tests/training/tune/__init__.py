"""Tests of `training.tune`."""
