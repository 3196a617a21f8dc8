"""Starting a program: what happens before the imports that take seconds, and the console scripts.

This module imports nothing else of the project.
"""

from __future__ import annotations

import importlib
import os
import signal


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
