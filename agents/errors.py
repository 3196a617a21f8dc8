"""The errors of agents that a user can correct."""


class AgentError(ValueError):
    """An agent cannot be created or run as configured; the message is one line with a remedy."""
