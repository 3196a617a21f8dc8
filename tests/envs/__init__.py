"""Tests of envs/, one file per module."""
