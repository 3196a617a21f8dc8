"""Tests of `envs.doom.players`."""
