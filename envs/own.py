"""What a user brings to an environment: modules, wrappers, and arguments as `key=value`."""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym

from envs.errors import EnvError

# Arguments that other options set.
_RESERVED = {
    "max_episode_steps": "--time-limit",
    "frameskip": "--frame-skip",
    "render_mode": "replay and watch, which draw every environment,",
    "disable_env_checker": "nothing: it is always checked,",
    "id": "ENV",
}
_SIMPLE_NUMBER = 1000  # Larger ones can make environments so large that they take all memory.


def import_own(module: str) -> Any:
    """Import a user's module, which is installed or in the current folder, and return it.

    Raises:
        EnvError: If it does not exist, or importing it fails.
    """
    # Scripts have their own folder on the path, not the current one. Workers inherit the path.
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(module)
    except Exception as error:  # A user's code can raise anything.
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            reason = "it is neither installed nor in the current folder"
            if module.endswith(".py"):
                reason = f"leave out .py, as in {module.removesuffix('.py')}"
        else:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise EnvError(f"the module {module} cannot be imported: {reason}") from error


def wrapped(env: gym.Env[Any, Any], wrappers: Sequence[str]) -> gym.Env[Any, Any]:
    """Return an environment in a user's wrappers, the first one innermost.

    Args:
        env: the environment.
        wrappers: each as `module:Wrapper`, a class or a function that takes an environment and
            returns one.

    Raises:
        EnvError: If a wrapper does not exist, fails, or returns something else.
    """
    for wrapper in wrappers:
        module, _, name = wrapper.partition(":")
        make = getattr(import_own(module), name, None)
        if not callable(make):
            raise EnvError(f"the module {module} has no wrapper called {name}")
        try:
            env = make(env)
        except Exception as error:  # A user's code can raise anything.
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise EnvError(f"the wrapper {wrapper} failed: {reason}") from error
        if not isinstance(env, gym.Env):
            raise EnvError(
                f"the wrapper {wrapper} returned {env!r:.60}, which is not an environment"
            )
    return env


def check_wrappers(wrappers: Sequence[str]) -> None:
    """Check that wrappers are named as `module:Wrapper`.

    Raises:
        ValueError: If one is not.
    """
    for wrapper in wrappers:
        if not re.fullmatch(r"[\w.]+:\w+", wrapper):
            raise ValueError(f"wrappers are named as module:Wrapper, got {wrapper!r:.60}")


def parse_kwargs(pairs: Sequence[str]) -> dict[str, Any]:
    """Return arguments for an environment from `key=value` pairs.

    Values are read as JSON, then as Python literals, and are texts otherwise.

    Raises:
        ValueError: If a pair is not of this form, a key is given twice, or another option sets it.
    """
    kwargs: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (equals and key.isidentifier() and text.isprintable()):
            raise ValueError(f"env_kwargs are given as key=value, got {pair!r:.60}")
        if key in kwargs:
            raise ValueError(f"env_kwargs gives {key} twice")
        if key in _RESERVED:
            raise ValueError(f"env_kwargs cannot set {key}; use {_RESERVED[key]} instead")
        kwargs[key] = _parse_value(text)
    return kwargs


def as_pairs(kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return arguments as `key=value` pairs, the inverse of `parse_kwargs`."""
    return tuple(f"{key}={value!r}" for key, value in kwargs.items())


def _parse_value(text: str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    return text


def are_simple(pairs: Sequence[str]) -> bool:
    """Return whether arguments are harmless: truth values, words, and numbers up to 1,000.

    Others, such as paths and sizes, are taken from a stranger's file only if the user trusts it.
    """
    return all(_is_simple(value) for value in parse_kwargs(pairs).values())


def _is_simple(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"[\w-]{0,64}", value) is not None
    if isinstance(value, (int, float)):
        return abs(value) <= _SIMPLE_NUMBER
    return value is None
