"""Command lines: flags from dataclasses, presets under them, one clear line for what is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


class UsageError(ValueError):
    """A command line asks for what cannot be: its message is one line that says what would work."""


def parse(
    kind: Any,
    arguments: Sequence[str],
    *,
    program: str,
    description: str | None = None,
    default: Any = None,
) -> Any:
    """Parse a command line into a dataclass, or into one of several (subcommands).

    Args:
        kind: the dataclass, or a union of them.
        arguments: the command line without the program's name.
        program: the program's name, for `--help`.
        description: what the program does, for `--help`.
        default: an instance whose values are the defaults.

    Raises:
        UsageError: If it cannot be parsed.
        SystemExit: After `--help`.
    """
    output = io.StringIO()
    kwargs = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(output):
            return tyro.cli(
                kind,
                args=list(arguments),
                prog=program,
                description=description,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
                **kwargs,
            )
    except ValueError as error:  # tyro explains those of inner dataclasses alone.
        raise UsageError(str(error)) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(output.getvalue())) from None


def _one_line(box: str) -> str:
    """Reduce tyro's boxed explanation to its message and its first suggestion."""
    lines = [line.strip(" │") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    if "╭" not in box:
        lines = lines[2:]  # Where a terminal has no such signs, a title and a line of hyphens.
    message: list[str] = []
    for line in lines:
        if line.startswith(("───", "---")):
            break
        message.append(line)
    text = re.sub(r"^Error parsing [A-Z]\w*(\[\w*\])?: ", "", " ".join(message))
    text = re.sub(r"^Missing from (.+?): (\S+) .*", r"\1 needs \2; \1 --help tells more", text)
    misplaced = re.match(r"Unrecognized or misplaced options: (--\S+) \(applied to (.+?)\)", text)
    if misplaced:
        text = f"{misplaced[2]} has no {misplaced[1]}"
    subcommands = re.search(r"Available subcommands: ([\w, -]+?) (?:───|---)", " ".join(lines))
    if subcommands:
        return f"{text}; there are {subcommands.group(1).strip()}"
    _, _, suggestions = " ".join(lines).partition("Perhaps you meant:")
    names = re.findall(r"--[\w-]+", suggestions)
    if misplaced and misplaced[1] in names:
        # Another command has one of this very name: only a longer one can be meant.
        names = [n for n in names if n.startswith(misplaced[1]) and n != misplaced[1]]
    if names:
        return f"{text}; did you mean {names[0]}?"
    return f"{text}; {misplaced[2]} --help tells what it has" if misplaced else text


def as_arguments(config: Any, default: Any, *, always: Collection[str] = ()) -> list[str]:
    """Give the flags that make one configuration of another: the way back from `parse`.

    Args:
        config: a dataclass, perhaps with others within.
        default: one of the same kind, from which flags are parsed.
        always: names of fields whose flags are given though they do not differ.
    """
    arguments: list[str] = []
    for field in dataclasses.fields(config):
        value, before = getattr(config, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            arguments += as_arguments(value, before, always=always)
        elif value == before and field.name not in always:
            continue
        else:
            arguments += as_flag(field.name, value)
    return arguments


def as_flag(name: str, value: Any) -> list[str]:
    """Give the words that set a field on a command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", *map(str, value if isinstance(value, tuple) else [value])]


def given_fields(arguments: Sequence[str]) -> set[str]:
    """Give the names of the fields whose flags are on a command line."""
    flags = (a.partition("=")[0] for a in arguments if a.startswith("--"))
    return {flag[2:].replace("-", "_").removeprefix("no_") for flag in flags}


def import_extra(module: str, extra: str) -> Any:
    """Import a module that only an extra of this project installs.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name not in (package, module):
            raise  # It is there, and lacks something itself.
        raise UsageError(f'{package} is not installed; pip install -e ".[{extra}]"') from error


def with_fields(config: T, values: Mapping[str, Any]) -> T:
    """Replace fields of a dataclass, and of the dataclasses within it, by name.

    Names that it does not have are passed over: a preset also serves agents that lack a field.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type] # any dataclass
        current = getattr(config, field.name)
        if dataclasses.is_dataclass(current):
            changes[field.name] = with_fields(current, values)
        elif field.name in values:
            changes[field.name] = values[field.name]
    return dataclasses.replace(config, **changes)  # type: ignore[type-var] # any dataclass


@functools.cache
def warn_of_wad(wad: Path) -> None:
    """Name a WAD that does not come with ViZDoom, on stderr, once."""
    print(
        f"{wad} does not come with ViZDoom; the engine is old, so be sure to trust it",
        file=sys.stderr,
    )


def run(program: Callable[[Sequence[str]], int], user_errors: tuple[type[Exception], ...]) -> int:
    """Run a program and turn what a user can cause into one line on stderr and exit status 2."""
    try:
        return program(sys.argv[1:])
    except BrokenPipeError:
        # Whoever read the output, `head` say, has seen enough.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 # closed with the process
        return 0
    except user_errors as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


@contextlib.contextmanager
def until_interrupted() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one ends it at once."""
    received: list[int] = []

    def remember(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        print("stopping after this update; once more to stop at once", file=sys.stderr)

    with handling_signals(remember):
        yield received


@contextlib.contextmanager
def handling_signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM oneself, for a while."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
