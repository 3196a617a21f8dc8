"""Evaluation of trained policies: scores, comparisons and replays."""
