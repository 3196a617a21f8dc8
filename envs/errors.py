"""The errors that `envs` raises; every message is one line."""


class EnvError(ValueError):
    """An environment cannot be made as requested, or it failed too often.

    The message says what is wrong and what would have worked.
    """


class ActionError(EnvError):
    """An action is not in the action space: the caller is wrong, not the environment."""


class ContractError(EnvError):
    """An environment breaks its own contract: a new one would break it, too."""
