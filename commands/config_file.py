"""YAML files of flags and their values: `python train.py --config FILE`.

Keys are flags without their hyphens, and `env`:

    env: basic
    memory: lstm
    learning-rate: 3e-4
    conv-channels: [16, 32, 32]
    overlap: true
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml  # type: ignore[import-untyped] # it has no types of its own

from commands.commandline import UsageError, as_flag, flag_values, given_fields, given_values
from storage.files import FileError, read_regular

_LARGEST = 2**16  # bytes
_MOST = 500  # settings, several times as many as there are
_ONCE = ("fresh", "autotune")
_COMMANDS = ("config", "print-config", "export-wad", "tune", "doctor", "help")


def with_config_file(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the flags of the file that its `--config` names.

    Flags that are on the command line are not taken from the file.

    Args:
        arguments: the command line; its first argument is the environment if it is not a flag.

    Raises:
        UsageError: If the file cannot be read, or does not contain flags and values.
    """
    if not (files := given_values(arguments, "config")):
        return list(arguments)
    file = Path(files[0]).expanduser()
    if file.suffix == ".json":
        raise UsageError(
            f"--config {file} is not YAML; print one with the flags of that run and --print-config"
        )
    values = _read(file)
    given = given_fields(arguments)
    flags: list[str] = []
    env = values.pop("env", None)
    for name, value in values.items():
        if name.replace("-", "_") not in given:
            flags += as_flag(name, value)
    if arguments and not arguments[0].startswith("-"):
        return [arguments[0], *flags, *arguments[1:]]
    return [*([] if env is None else [str(env)]), *flags, *arguments]


def as_yaml(env: str, *configs: Any) -> str:
    """Return the content of a file with all values of some configurations.

    Args:
        env: the environment.
        *configs: dataclasses.
    """
    values: dict[str, Any] = {"env": env}
    for config in configs:
        values |= flag_values(config)
    # What is asked of one command only is not repeated.
    kept = {n: v for n, v in values.items() if n not in _ONCE}
    return msgspec.yaml.encode(kept, enc_hook=str).decode()


def _read(file: Path) -> dict[str, Any]:
    try:
        content = read_regular(file, _LARGEST)
        if any(
            isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, yaml.SafeLoader)
        ):
            raise UsageError(f"--config {file} has aliases (*name); write the values themselves")
        values = dict(_flat(msgspec.yaml.decode(content, type=dict[str, Any])))
    except OSError as error:
        raise UsageError(f"--config {file} cannot be read: {error.strerror}") from error
    except FileError as error:
        raise UsageError(f"--config: {error}") from error
    except (msgspec.DecodeError, yaml.YAMLError, RecursionError, UnicodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"--config {file} is not YAML of flags and values, as in learning-rate: 3e-4 ({reason})"
        ) from error
    if len(values) > _MOST:
        raise UsageError(
            f"--config {file} has {len(values):,} settings; at most {_MOST} are possible"
        )
    for name, value in values.items():
        if name.replace("_", "-") in (*_ONCE, *_COMMANDS):
            raise UsageError(f"--config {file}: {name} belongs on the command line")
        if "\0" in f"{name}{value}":
            raise UsageError(f"--config {file}: {name!r} has a character that no setting may have")
    return values


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested mappings as one, with dotted names, and lists as tuples."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", tuple(value) if isinstance(value, list) else value
