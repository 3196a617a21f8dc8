"""Starting a program: what happens before the imports that take seconds, and the console scripts.

This module imports nothing else of the project.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal


def prepare(name: str, **variables: str) -> None:
    """Prepare a program, before PyTorch is imported.

    Args:
        name: `__name__` of its module, `__main__` if it runs as a program.
        **variables: environment variables, which are set unless the user has set them.
    """
    if name == "__main__":
        exit_when_interrupted()
    # Matplotlib would read settings in the current folder, which may be a stranger's.
    if os.path.lexists("matplotlibrc") and (found := importlib.util.find_spec("matplotlib")):
        own = os.path.join(os.path.dirname(found.origin or ""), "mpl-data", "matplotlibrc")
        os.environ.setdefault("MATPLOTLIBRC", own)
    # Threads that wait for each other soon sleep instead of taking the cores from the environments:
    # a lower value slows recurrent networks down, a higher one the environments.
    for variable, value in {"GOMP_SPINCOUNT": "10000", **variables}.items():
        os.environ.setdefault(variable, value)


def exit_when_interrupted() -> None:
    """Let Ctrl-C end this process at once, silently, with status 130.

    An exception, in the middle of the imports, would print a traceback of theirs.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))


def train() -> None:
    """Run as the console script `doomgrad-train`."""
    exit_when_interrupted()
    importlib.import_module("train").command()


def evaluate() -> None:
    """Run as the console script `doomgrad-evaluate`."""
    exit_when_interrupted()
    importlib.import_module("evaluate").command()
