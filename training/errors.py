"""What can be wrong with a training run."""


class TrainingError(RuntimeError):
    """A training run cannot start or continue: the message says why, and what of it was saved."""
