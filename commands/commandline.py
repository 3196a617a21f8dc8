"""Command lines: flags from dataclasses, and one clear line for what is wrong.

What takes seconds to import is not imported at the top, here or in the modules of commands, so that
`--help` is quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import functools
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

import tyro

from commands.elsewhere import flag_for
from evaluation.printing import print_line
from processes.streams import lost_output, protect_streams


class UsageError(ValueError):
    """A command line cannot be obeyed: the message is one line that says what would work."""


def _whole_number(text: str) -> int:
    """Return the whole number that a text means: `1000`, `1_000`, or `1e3`."""
    try:
        return int(text)
    except ValueError:
        if re.fullmatch(r"[+-]?\d[\d_]*(\.\d+)?[eE]\+?\d{1,2}", text) and float(text).is_integer():
            return int(float(text))
        raise


_NUMBERS = tyro.constructors.ConstructorRegistry()


@_NUMBERS.primitive_rule
def _rule_of_whole_numbers(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: _whole_number(words[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


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
                config=(tyro.conf.OmitSubcommandPrefixes,),
                registry=_NUMBERS,
                **kwargs,
            )
    except ValueError as error:  # tyro only explains those of inner dataclasses.
        raise UsageError(str(error)) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        # The first word may be a subcommand, which has flags of its own.
        first = [argument for argument in arguments[:1] if not argument.startswith("-")]
        names = functools.partial(_flags, kind, first, program=program, **kwargs)
        line = _one_line(output.getvalue(), program, names)
        if " needs " in line:  # The word that is missing may be after an option that is unknown.
            flags = (a.partition("=")[0] for a in arguments if a.startswith("--"))
            unknown = next((f for f in flags if f.replace("_", "-") not in names()), None)
            line = _unknown_option(unknown, program, "", names) if unknown else line
        raise UsageError(line) from None


def _flags(kind: Any, words: Sequence[str], *, program: str, **kwargs: Any) -> set[str]:
    """Return the options that there are after some words of a command line."""
    output = io.StringIO()
    silent = contextlib.redirect_stderr(io.StringIO())
    with contextlib.redirect_stdout(output), silent, contextlib.suppress(SystemExit):
        config = (tyro.conf.OmitSubcommandPrefixes,)
        tyro.cli(
            kind, args=[*words, "--help"], prog=program, config=config, registry=_NUMBERS, **kwargs
        )
    return set(re.findall(r"--[\w.-]+", output.getvalue()))


def _one_line(box: str, program: str, flags: Callable[[], set[str]]) -> str:
    """Return tyro's boxed explanation as one line that says what would work.

    Args:
        box: what tyro printed.
        program: the program's name.
        flags: returns the options of the command.
    """
    lines = [line.strip(" │") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    if "╭" not in box:
        lines = lines[2:]  # Without box characters: a title and a line of hyphens.
    end = next((i for i, n in enumerate(lines) if n.startswith(("───", "---"))), len(lines))
    text, below = " ".join(lines[:end]), " ".join(lines[end:])
    unknown = re.match(r"Unrecognized options: ([^,\s]+)", text)
    misplaced = re.match(r"Unrecognized or misplaced options: (\S+) \(applied to (.+?)\)", text)
    if misplaced:
        return _unknown_option(misplaced[1], misplaced[2], below, flags)
    if unknown and unknown[1].startswith("-"):
        return _unknown_option(unknown[1], program, below, flags)
    if unknown:
        subcommands = re.search(r"Available subcommands: ([\w, -]+?) (?:───|---)", below)
        if subcommands:
            return f"{program} has no command {unknown[1]!r}; choose from {subcommands[1].strip()}"
        return f"{program} cannot use {unknown[1]!r}; see {program} --help"
    for pattern, replacement in _REWRITTEN:
        text = re.sub(pattern, replacement, text)
    return text


# Replacements for tyro's error messages. Messages of configurations, which check values, are kept.
_REWRITTEN = (
    (r"^Error parsing (?:\w+\.)*objectives\.([\w-]+): (\w+)", r"\1.\2"),
    (r"^Error parsing (--\S+): ", r"\1: "),
    (r"^Error parsing [\w.]+(?:\[[\w, ]*\])?: ", ""),
    (r"invalid literal for int\(\) .*: ('.*')$", r"\1 is not a whole number"),
    (r"could not convert string to float: ('.*')$", r"\1 is not a number"),
    (
        r"no type matching \{None\}\|(\S+) could be instantiated from \[('.*?')\].*",
        r"\2 is neither None nor \1",
    ),
    (r"neither None nor INT$", "neither None nor a whole number"),
    (
        r"^invalid choice ('.*') for argument '(\S+)'. Expected one of \((.*)\) ?\.$",
        r"\2 cannot be \1; choose from \3",
    ),
    (r"^Missing from (.+?): (\S+) .*", r"\1 needs \2; see \1 --help"),
    (r"^Missing value for argument '(\S+)'. Expected 1 values.$", r"\1 needs a value"),
    (r"^Missing value for argument '(\S+)'. Expected (\d+) values.$", r"\1 needs \2 values"),
    (r"^Expected one of \{(.*)\}.$", r"name a command; choose from \1"),
)


def _unknown_option(
    option: str, program: str, suggestions: str, flags: Callable[[], set[str]]
) -> str:
    """Return the line about an option that a program does not have.

    Args:
        option: as it was given.
        program: the program's name, with the subcommand.
        suggestions: options that tyro suggests, with their descriptions.
        flags: returns the options of the program.
    """
    meant = flag_for(option, flags())
    if not meant and not suggestions:
        meant = next(iter(difflib.get_close_matches(option, sorted(flags()), n=1)), None)
    if meant:
        return f"{program} has no {option}; did you mean {meant}?"
    names = set(re.findall(r"--[\w.-]+", suggestions.partition("Perhaps you meant:")[2]))
    if option in names:
        # Another command has an option of this name: only a longer one can be meant.
        names = {name for name in names if name.startswith(option)} - {option}
    close = difflib.get_close_matches(option, sorted(names), n=1, cutoff=0.0)
    hint = f"did you mean {close[0]}?" if close else f"see {program} --help"
    return f"{program} has no {option}; {hint}"


def as_arguments(config: Any, default: Any, *, always: Collection[str] = ()) -> list[str]:
    """Return the flags that turn one configuration into another, the inverse of `parse`.

    Args:
        config: a dataclass, with nested ones.
        default: one of the same type, the defaults under the flags.
        always: names of fields whose flags are returned even if they do not differ.
    """
    values = flag_values(config, default, always=always)
    return [word for name, value in values.items() for word in as_flag(name, value)]


def flag_values(
    config: Any, default: Any = None, *, always: Collection[str] = (), prefix: str = ""
) -> dict[str, Any]:
    """Return the values of a configuration by flag, without hyphens.

    Args:
        config: a dataclass, with nested ones.
        default: one of the same type: only values that differ from it are returned. None: all are.
        always: names of fields whose values are returned even if they do not differ.
        prefix: prefix of the flags.
    """
    from agents import ObjectiveConfig

    values: dict[str, Any] = {}
    fields = [f for f in dataclasses.fields(config) if f.metadata.get("has_flag", True)]
    for field in fields:
        value, before = getattr(config, field.name), getattr(default, field.name, None)
        if dataclasses.is_dataclass(value):
            # Fields of objectives have dotted flags, because their names are not unique.
            inside = f"{field.name}." if isinstance(value, ObjectiveConfig) else ""
            values |= flag_values(value, before, always=always, prefix=inside)
        elif default is None or value != before or field.name in always:
            # A field called like a keyword ends with an underscore.
            values[prefix + field.name.rstrip("_").replace("_", "-")] = value
    return values


def as_flag(name: str, value: Any) -> list[str]:
    """Return the arguments that give a flag a value.

    Args:
        name: the flag without the hyphens in front, or its field.
        value: the value.
    """
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", *map(str, value if isinstance(value, tuple) else [value])]


def given_fields(arguments: Sequence[str]) -> set[str]:
    """Return the names of the fields whose flags are on a command line."""
    flags = (a.partition("=")[0] for a in arguments if a.startswith("--"))
    return {flag[2:].replace("-", "_").removeprefix("no_") for flag in flags}


def given_values(arguments: Sequence[str], name: str) -> list[str]:
    """Return the values that follow a flag on a command line; empty if it is not there.

    Args:
        arguments: the command line.
        name: name of the field.
    """
    values: list[str] = []
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag == f"--{name}":
            following = itertools.takewhile(lambda v: not v.startswith("-"), arguments[i + 1 :])
            values = [value] if equals else list(following)
    return values


_REPEATED = (
    "import",
    "objectives",
    "extra_channels",
    "buttons",
    "env_kwargs",
    "shaping",
    "wrappers",
)


def join_repeated(arguments: Sequence[str]) -> list[str]:
    """Return a command line on which flags of several values are given once, with all values."""
    values: dict[str, list[str]] = {}
    joined: list[str] = []
    current = None
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag.startswith("--") and flag[2:].replace("-", "_") in _REPEATED:
            if flag not in values:
                joined.append(flag)
            values.setdefault(flag, []).extend([value] if equals else [])
            current = None if equals else flag
        elif argument.startswith("-") or current is None:
            current = None
            joined.append(argument)
        else:
            values[current].append(argument)
    return [word for part in joined for word in (part, *values.get(part, ()))]


_ERRORS = {
    "agents.errors": "AgentError",
    "agents.extras": "MissingExtraError",
    "deploy.errors": "DeployError",
    "envs.errors": "EnvError",
    "evaluation.errors": "EvaluationError",
    "perception.encoders.encoder": "PerceptionError",
    "perception.lookup": "UnknownNameError",
    "storage.files": "FileError",
    "training.errors": "TrainingError",
}
"""What a user can cause or has to know, by module; each message says what would work."""


def user_errors() -> tuple[type[Exception], ...]:
    """Return the classes of errors that are reported in one line.

    Only those of modules that are imported: others cannot have been raised, and importing them
    takes seconds, which `--help` and mistakes on the command line need not.
    """
    modules = ((sys.modules.get(module), name) for module, name in _ERRORS.items())
    return (UsageError, *(getattr(module, name) for module, name in modules if module))


_NOT_READ = (errno.EPIPE, errno.ETIMEDOUT)  # Whoever read the output has seen enough.


def execute(program: Callable[[Sequence[str]], int], *, drops_output: bool = False) -> None:
    """Run a program, and exit: see `run`. Output that nobody reads any more stops nothing.

    Args:
        program: takes the command line, and returns the exit status.
        drops_output: see `protect_streams`.
    """
    protect_streams(drops_output=drops_output)
    status = run(program)
    lost = lost_output()
    if status == 0 and lost is not None and lost.errno not in _NOT_READ:
        print_line(f"error: output could not be written ({lost.strerror})", sys.stderr)
        status = 1
    if status == 130:
        os._exit(130)  # Threads may be in the middle of anything, and are not waited for.
    sys.exit(status)


def run(program: Callable[[Sequence[str]], int]) -> int:
    """Run a program, and return its exit status.

    An error that a user can cause is reported as one line, with status 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Terminals without UTF-8 show \\xb7 for a dot.
            stream.reconfigure(errors="backslashreplace")
    try:
        return program(expand_home(sys.argv[1:]))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of the output, `head` for example, has seen enough.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 # closed with the process
        return 0
    except user_errors() as error:
        print_line(f"error: {error}", sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        # A file of the user's: a full disk, a folder that cannot be written.
        print_line(f"error: {os.fsdecode(error.filename)}: {error.strerror}", sys.stderr)
        return 2


def expand_home(arguments: Sequence[str]) -> list[str]:
    """Replace `~` at the beginning of arguments, and of values as in `--out=~/x`, as shells do."""
    expanded = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if argument.startswith("--") and equals:
            expanded.append(f"{flag}={os.path.expanduser(value)}")
        else:
            expanded.append(os.path.expanduser(argument))
    return expanded
