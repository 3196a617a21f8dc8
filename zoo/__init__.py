"""Trained policies, a folder each; see the README.md in them."""
