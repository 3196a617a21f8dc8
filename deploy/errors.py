"""The error of exporting and sharing policies."""


class DeployError(ValueError):
    """A policy cannot be exported, pushed or pulled: the message is one line with the reason."""
