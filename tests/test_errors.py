"""Tests of the `errors` modules of all packages."""

import importlib
import inspect

import pytest

from commands.commandline import user_errors

PACKAGES = ("agents", "deploy", "envs", "evaluation", "training")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_error_is_reported_in_one_line_by_the_command_line(package):
    module = importlib.import_module(f"{package}.errors")
    errors = [
        e for _, e in inspect.getmembers(module, inspect.isclass) if e.__module__ == module.__name__
    ]
    assert errors
    assert all(issubclass(error, user_errors()) for error in errors)
