"""Tests of `envs.vector`."""
