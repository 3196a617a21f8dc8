"""Tests of perception/memory/, one file per module."""
