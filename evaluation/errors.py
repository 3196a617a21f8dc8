"""Errors of evaluation."""


class EvaluationError(ValueError):
    """A requested evaluation is not possible: the message is one line that says what would work."""
