"""Tests of perception/encoders/, one file per module."""
