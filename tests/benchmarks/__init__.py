"""Tests of docs/, one file per module."""
