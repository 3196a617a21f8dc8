"""The one exception a user of `envs` can cause."""


class EnvError(ValueError):
    """Something about a world is not as asked: its message is one line that says what would work."""
