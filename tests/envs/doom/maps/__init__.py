"""Tests of `envs.doom`."""
