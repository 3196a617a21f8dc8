"""Comparisons as tables, sentences, figures and JSON, and in TensorBoard."""
