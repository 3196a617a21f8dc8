"""Tests of evaluation/report/, one file per module."""
