"""Tests of agents/sb3/, one file per module."""
