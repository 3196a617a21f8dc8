"""The one exception a user of `envs` can cause."""


class EnvError(ValueError):
    """A world is not as asked: the message is one line that says what would work."""
