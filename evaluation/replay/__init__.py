"""Showing episodes: recorded ones as videos and pages, and new ones live."""
