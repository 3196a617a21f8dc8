"""Tests of agents/objectives/, one file per module."""
