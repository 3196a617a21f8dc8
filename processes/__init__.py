"""Processes: how they start and end, and what they print."""
