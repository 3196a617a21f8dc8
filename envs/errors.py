"""What can go wrong in `envs`; every message is one line."""


class EnvError(ValueError):
    """A world is not as asked: the message says what would work. Or it breaks again and again."""


class ActionError(EnvError):
    """An action is not in the action space: who chose it is wrong, not the world."""
