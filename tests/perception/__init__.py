"""Tests of perception/, one file per module."""
