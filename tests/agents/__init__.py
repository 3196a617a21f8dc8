"""Tests of agents/, one file per module."""
