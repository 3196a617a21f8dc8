"""Importing packages that only one of this project's extras installs."""

from __future__ import annotations

import importlib
from typing import Any


class MissingExtraError(ImportError):
    """A package is not installed; the message is one line with the command that installs it."""


def import_extra(module: str, extra: str) -> Any:
    """Import a module that only one of this project's extras installs.

    Args:
        module: full name of the module.
        extra: the extra that installs it.

    Returns:
        The module.

    Raises:
        MissingExtraError: If the module's package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name not in (package, module):
            raise  # The package is installed, but one of its requirements is not.
        raise MissingExtraError(
            f'{package} is not installed; pip install -e ".[{extra}]"'
        ) from error
