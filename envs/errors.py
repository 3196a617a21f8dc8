"""The errors that `envs` raises; every message is one line."""

from __future__ import annotations

import os
import traceback

from processes.streams import printable


class EnvError(ValueError):
    """An environment cannot be made as requested, or it failed too often.

    The message says what is wrong and what would have worked.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ActionError(EnvError):
    """An action is not in the action space: the caller is wrong, not the environment."""


class ContractError(EnvError):
    """An environment breaks its own contract: a new one would break it, too."""


def describe_error(error: Exception) -> str:
    """Return what went wrong in one line, with the place in the code unless it is an EnvError."""
    if isinstance(error, EnvError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({os.path.basename(where.filename)}:{where.lineno})"
